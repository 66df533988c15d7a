"""Runs, their steps, and hosts in the database. Each function works inside the caller's transaction.

Every write of a run names its attempt: a host that was given up for dead and comes back late changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, and_, delete, exists, insert, or_, select, update

from lockgate.errors import Conflict, NotFound
from lockgate.results import RunResult, Usage
from lockgate.runs import RunRequest
from lockgate.runtime.model import Step
from lockgate.storage.schema import approvals, hosts, run_steps, runs

Row = RowMapping


def add(connection: Connection, request: RunRequest, *, host: str, now: float) -> None:
    """A run begins. Raises :class:`Conflict` when its id is taken."""
    if connection.execute(select(runs.c.id).where(runs.c.id == request.run_id)).first() is not None:
        raise Conflict(f"run {request.run_id!r} exists already")
    connection.execute(
        insert(runs).values(
            id=request.run_id,
            agent=request.agent,
            environment=request.environment,
            behaviour_digest=request.behaviour_digest,
            effective_digest=request.effective_digest,
            arm=request.arm,
            rollout_id=request.rollout_id,
            assignment_key=_text(request.assignment_key),
            session=_text(request.session),
            tenant=request.tenant,
            primary_run=request.primary_run,
            depth=request.depth,
            tools=request.tools,
            origin=msgspec.to_builtins(request.origin),
            status="running",
            input=request.input,
            trace_id=request.trace_id,
            host=host,
            started_at=now,
        )
    )


def get(connection: Connection, run_id: str) -> Row:
    """Raises :class:`NotFound`."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()
    if row is None:
        raise NotFound(f"no run {run_id!r}", remedy="lockgate runs list")
    return row


def listed(
    connection: Connection, *, status: str | None, agent: str | None, environment: str | None, limit: int
) -> Sequence[Row]:
    """Newest first."""
    query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
    for column, value in ((runs.c.status, status), (runs.c.agent, agent), (runs.c.environment, environment)):
        if value is not None:
            query = query.where(column == value)
    return connection.execute(query).mappings().all()


def fence(connection: Connection, run_id: str, attempt: int) -> None:
    """Raises :class:`Conflict` unless this attempt is the one in progress. Locks the run until the transaction ends."""
    query = select(runs.c.attempt, runs.c.status).where(runs.c.id == run_id).with_for_update()
    row = connection.execute(query).first()
    if row is None or row.attempt != attempt or row.status != "running":
        now = "gone" if row is None else f"{row.status}, attempt {row.attempt}"
        raise Conflict(f"run {run_id} is not in attempt {attempt} any more: it is {now}")


def put_step(connection: Connection, run_id: str, values: dict[str, Any], *, new: bool) -> None:
    """Write a step (see :func:`step_values`); ``new`` is False for one that was written before."""
    if new:
        connection.execute(insert(run_steps).values(run_id=run_id, **values))
    else:
        at = and_(run_steps.c.run_id == run_id, run_steps.c.seq == values["seq"])
        connection.execute(update(run_steps).where(at).values(**values))


def steps_of(connection: Connection, run_id: str) -> list[Step]:
    """In order."""
    query = select(run_steps).where(run_steps.c.run_id == run_id).order_by(run_steps.c.seq)
    return [_step(row) for row in connection.execute(query).mappings()]


def end(connection: Connection, run_id: str, attempt: int, result: RunResult, *, replayed: int, now: float) -> None:
    """The run has this result; a suspended one may go on later. Raises :class:`Conflict` when the attempt is over."""
    mine = and_(runs.c.id == run_id, runs.c.attempt == attempt, runs.c.status.in_(("running", "suspended")))
    changed = connection.execute(
        update(runs)
        .where(mine)
        .values(
            status=result.status,
            output=result.output,
            error_type=result.error_type,
            error=_text(result.error),
            input_tokens=result.usage.input_tokens,
            output_tokens=result.usage.output_tokens,
            cost_nano=result.cost_nano,
            model_calls=result.model_calls,
            tool_calls=len(result.tools_used),
            iterations=result.iterations,
            replayed_calls=replayed,
            served=result.served or None,
            ended_at=None if result.status == "suspended" else now,
        )
    )
    if changed.rowcount != 1:
        raise Conflict(f"run {run_id} is not in attempt {attempt} any more")


def suspend(connection: Connection, run_id: str) -> None:
    """Mark a fenced run as waiting for a person."""
    connection.execute(update(runs).where(runs.c.id == run_id).values(status="suspended"))


def take(connection: Connection, run_id: str, *, host: str, effective_digest: str) -> Row:
    """Begin the next attempt of a suspended run. Raises :class:`Conflict` when it is not suspended, or not ours."""
    row = get(connection, run_id)
    if row["effective_digest"] != effective_digest:
        raise Conflict(f"run {run_id} is of {row['effective_digest'][:19]}, this host serves {effective_digest[:19]}")
    suspended = and_(runs.c.id == run_id, runs.c.status == "suspended", runs.c.attempt == row["attempt"])
    taken = connection.execute(
        update(runs).where(suspended).values(status="running", attempt=runs.c.attempt + 1, host=host)
    )
    if taken.rowcount != 1:
        raise Conflict(f"run {run_id} is {row['status']}, not suspended")
    return get(connection, run_id)


def resumable(connection: Connection) -> Sequence[Row]:
    """Suspended runs that wait for nobody any more, oldest first."""
    waits = exists().where(approvals.c.run_id == runs.c.id, approvals.c.status == "pending")
    query = select(runs).where(runs.c.status == "suspended", ~waits).order_by(runs.c.started_at)
    return connection.execute(query).mappings().all()


def lost(connection: Connection, *, heartbeat_before: float) -> Sequence[Row]:
    """Runs in progress on a host that is gone, or has not been heard of since ``heartbeat_before``."""
    alive = exists().where(hosts.c.id == runs.c.host, hosts.c.heartbeat_at >= heartbeat_before)
    query = select(runs).where(runs.c.status == "running", ~alive).order_by(runs.c.started_at).with_for_update()
    return connection.execute(query).mappings().all()


def give_up(
    connection: Connection,
    run_id: str,
    attempt: int,
    *,
    status: str,
    error_type: str | None,
    error: str | None,
    now: float,
) -> bool:
    """End a lost attempt, and fence off its host; False when the run moved on by itself."""
    mine = and_(runs.c.id == run_id, runs.c.attempt == attempt, runs.c.status == "running")
    changed = connection.execute(
        update(runs)
        .where(mine)
        .values(
            status=status,
            attempt=runs.c.attempt + 1,
            error_type=error_type,
            error=error,
            ended_at=None if status == "suspended" else now,
        )
    )
    return changed.rowcount == 1


def has_started_step(connection: Connection, run_id: str) -> bool:
    """Whether a write of the run was begun and its end is not known."""
    query = select(run_steps.c.seq).where(run_steps.c.run_id == run_id, run_steps.c.status == "started")
    return connection.execute(query).first() is not None


def put_host(connection: Connection, *, host: str, effective_digest: str, pid: int, address: str, now: float) -> None:
    """Register a host, or renew its heartbeat."""
    known = connection.execute(update(hosts).where(hosts.c.id == host).values(heartbeat_at=now))
    if known.rowcount == 0:
        connection.execute(
            insert(hosts).values(
                id=host, effective_digest=effective_digest, pid=pid, address=address, ready_at=now, heartbeat_at=now
            )
        )


def remove_hosts(connection: Connection, *, host: str | None = None, heartbeat_before: float | None = None) -> None:
    """Forget a host that ended, or those not heard of for long."""
    which = [hosts.c.id == host] if host is not None else []
    if heartbeat_before is not None:
        which.append(hosts.c.heartbeat_at < heartbeat_before)
    connection.execute(delete(hosts).where(or_(*which)))


def step_values(step: Step) -> dict[str, Any]:
    """A step as columns, as it is now: the run goes on while the row is being written."""
    return {
        "seq": step.seq,
        "kind": step.kind,
        "name": _text(step.name),
        "request_hash": step.request_hash,
        "request": step.request,
        "response": step.response,
        "status": step.status,
        "effect": step.effect,
        "replayed": step.replayed,
        "error_type": step.error_type,
        "error": _text(step.error),
        "input_tokens": step.usage.input_tokens,
        "output_tokens": step.usage.output_tokens,
        "cost_nano": step.cost_nano,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
    }


def request_of(row: Row, token: str) -> RunRequest:
    """The request a run began with, under another token."""
    fields = ("agent", "environment", "behaviour_digest", "effective_digest", "arm", "rollout_id", "assignment_key")
    return msgspec.convert(
        {name: row[name] for name in fields}
        | {name: row[name] for name in ("session", "tenant", "input", "trace_id", "primary_run", "depth", "tools")}
        | {"run_id": row["id"], "token": token, "parent_span": None, "origin": row["origin"] or {}},
        RunRequest,
    )


def _step(row: Row) -> Step:
    return Step(
        seq=row["seq"],
        kind=row["kind"],
        name=row["name"],
        request_hash=row["request_hash"],
        request=row["request"],
        status=row["status"],
        effect=row["effect"],
        response=row["response"],
        error_type=row["error_type"],
        error=row["error"],
        usage=Usage(input_tokens=row["input_tokens"], output_tokens=row["output_tokens"]),
        cost_nano=row["cost_nano"],
        replayed=bool(row["replayed"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _text(value: str | None) -> Any:
    """PostgreSQL has no NUL in text."""
    return value.replace("\0", "") if value else value
