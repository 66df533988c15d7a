"""The rows of rollouts: the rollouts themselves, deployments, routes, holds and assignments.

Functions on a connection, so that a service can put several into one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from lockgate.errors import Conflict
from lockgate.gateway.model import Route
from lockgate.rollouts.assignment import choose
from lockgate.rollouts.model import LIVE, Deployment, Event, Plan, Rollout
from lockgate.runs import Arm
from lockgate.storage import schema
from lockgate.storage.engine import Database
from lockgate.storage.upsert import insert_into
from lockgate.versions.model import AgentSettings, VersionRef

# --- assignment -----------------------------------------------------------------------------------------------


def assign(control: Database, rollout_id: str, key: str, weight: float, now: float) -> Arm:
    """The arm of ``key`` in this rollout, written down the first time and the same ever after.

    ``weight`` is a percentage. A new key at weight 0 is stable without being assigned: it takes no part. Once the
    rollout is rolled back or aborted everybody is stable, also for a gateway that has not heard of it yet.
    """
    table = schema.assignments
    found = select(table.c.arm).where(table.c.rollout_id == rollout_id, table.c.key == key)
    status = select(schema.rollouts.c.status).where(schema.rollouts.c.id == rollout_id)
    with control.read() as connection:
        if connection.execute(status).scalar() in ("rolled_back", "aborted"):
            return "stable"
        arm = connection.execute(found).scalar()
    if arm is None and weight > 0:
        with control.write() as connection:
            if connection.dialect.name == "postgresql":  # numbers are then given out in the order they become visible
                connection.execute(text("select pg_advisory_xact_lock(hashtext(:name))"), {"name": rollout_id})
            connection.execute(
                insert_into(connection, table)
                .values(
                    rollout_id=rollout_id,
                    key=key,
                    arm=choose(rollout_id, key, weight),
                    weight=weight,
                    assigned_at=now,
                )
                .on_conflict_do_nothing()
            )
            arm = connection.execute(found).scalar_one()
    return "candidate" if arm == "candidate" else "stable"


# --- rollouts -------------------------------------------------------------------------------------------------


def one_at_a_time(connection: Connection, environment: str, agent: str) -> None:
    """Inside a writing transaction: whoever else changes what serves this agent there waits until it ends.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        name = f"deploy:{environment}/{agent}"
        connection.execute(text("select pg_advisory_xact_lock(hashtext(:name))"), {"name": name})


def insert_rollout(connection: Connection, rollout: Rollout) -> None:
    """Raises :class:`Conflict` when the agent has a live rollout in that environment already."""
    live = list_rollouts(connection, environment=rollout.environment, agent=rollout.agent, live=True)
    try:
        if not live:
            connection.execute(insert(schema.rollouts).values(**_rollout_row(rollout)))
    except IntegrityError:
        live = [rollout]
    if live:
        other = live[0].candidate.behaviour_digest.removeprefix("sha256:")[:12]
        known = "" if live[0] is rollout else f": {live[0].id} to {other}, started by {live[0].created_by}"
        raise Conflict(
            f"{rollout.agent} has a rollout in {rollout.environment!r} already{known}",
            remedy=f"lockgate rollout status {rollout.agent} --env {rollout.environment}, then promote or abort it",
        ) from None


def update_rollout(connection: Connection, old: Rollout, new: Rollout) -> bool:
    """Save ``new`` if the row still is what ``old`` says; False when somebody else was first."""
    table = schema.rollouts
    changed = connection.execute(
        update(table)
        .where(
            table.c.id == old.id,
            table.c.status == old.status,
            table.c.phase == old.phase,
            table.c.updated_at == old.updated_at,
        )
        .values(**_rollout_row(new))
    )
    return changed.rowcount == 1


def get_rollout(connection: Connection, rollout_id: str) -> Rollout | None:
    row = connection.execute(select(schema.rollouts).where(schema.rollouts.c.id == rollout_id)).first()
    return None if row is None else _rollout(row)


def list_rollouts(
    connection: Connection,
    *,
    environment: str | None = None,
    agent: str | None = None,
    live: bool = False,
    limit: int = 100,
) -> list[Rollout]:
    """Newest first."""
    table = schema.rollouts
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if environment is not None:
        query = query.where(table.c.environment == environment)
    if agent is not None:
        query = query.where(table.c.agent == agent)
    if live:
        query = query.where(table.c.status.in_(LIVE))
    return [_rollout(row) for row in connection.execute(query)]


def live_candidates(connection: Connection) -> list[tuple[str, str]]:
    """(id, candidate's effective digest) of every live rollout, newest first: one look into a small index."""
    table = schema.rollouts
    query = select(table.c.id, table.c.candidate_effective).where(table.c.ended_at.is_(None))
    return [(row[0], row[1]) for row in connection.execute(query.order_by(table.c.created_at.desc()))]


def family(connection: Connection, rollout: Rollout) -> list[str]:
    """The ids of all rollouts of the same candidate over the same baseline there: they share their evidence."""
    table = schema.rollouts
    return list(
        connection.execute(
            select(table.c.id)
            .where(
                table.c.environment == rollout.environment,
                table.c.agent == rollout.agent,
                table.c.baseline_effective == rollout.baseline.effective_digest,
                table.c.candidate_effective == rollout.candidate.effective_digest,
            )
            .order_by(table.c.created_at, table.c.id)
        ).scalars()
    )


def began_at(connection: Connection, rollout_ids: Iterable[str]) -> float:
    """When the first of these rollouts was created."""
    table = schema.rollouts
    return float(
        connection.execute(select(func.min(table.c.created_at)).where(table.c.id.in_(list(rollout_ids)))).scalar_one()
    )


def add_event(connection: Connection, rollout_id: str, event: Event) -> None:
    connection.execute(
        insert(schema.rollout_events).values(
            rollout_id=rollout_id, at=event.at, kind=event.kind, message=event.message, data=event.data
        )
    )


def events(connection: Connection, rollout_id: str) -> list[Event]:
    table = schema.rollout_events
    rows = connection.execute(select(table).where(table.c.rollout_id == rollout_id).order_by(table.c.seq))
    return [Event(at=row.at, kind=row.kind, message=row.message, data=row.data) for row in rows]


# --- deployments, routes, hosts, holds ------------------------------------------------------------------------


def deployment(connection: Connection, environment: str, agent: str) -> Deployment | None:
    table = schema.deployments
    row = connection.execute(select(table).where(table.c.environment == environment, table.c.agent == agent)).first()
    return None if row is None else _deployment(row)


def list_deployments(connection: Connection, environment: str | None = None) -> list[Deployment]:
    table = schema.deployments
    query = select(table).order_by(table.c.agent, table.c.environment)
    if environment is not None:
        query = query.where(table.c.environment == environment)
    return [_deployment(row) for row in connection.execute(query)]


def save_deployment(connection: Connection, deployed: Deployment) -> None:
    previous = deployed.previous
    _upsert(
        connection,
        schema.deployments,
        {"environment": deployed.environment, "agent": deployed.agent},
        {
            "stable_behaviour": deployed.stable.behaviour_digest,
            "stable_effective": deployed.stable.effective_digest,
            "previous_behaviour": previous.behaviour_digest if previous else None,
            "previous_effective": previous.effective_digest if previous else None,
            "warm_until": deployed.warm_until,
            "settings": msgspec.to_builtins(deployed.settings),
            "updated_at": deployed.updated_at,
            "updated_by": deployed.updated_by,
        },
    )


def route(connection: Connection, environment: str, agent: str) -> Route | None:
    table = schema.routes
    row = connection.execute(select(table).where(table.c.environment == environment, table.c.agent == agent)).first()
    if row is None:
        return None
    candidate = None
    if row.candidate_behaviour is not None:
        candidate = VersionRef(
            agent=agent, behaviour_digest=row.candidate_behaviour, effective_digest=row.candidate_effective
        )
    return Route(
        environment=environment,
        agent=agent,
        stable=VersionRef(agent=agent, behaviour_digest=row.stable_behaviour, effective_digest=row.stable_effective),
        settings=msgspec.convert(row.settings, AgentSettings),
        candidate=candidate,
        rollout_id=row.rollout_id,
        weight=row.weight,
        mirror=row.mirror,
        lease_until=row.lease_until,
        revision=row.revision,
    )


def save_route(connection: Connection, wanted: Route, *, renew_before: float = 0.0) -> bool:
    """Write the route if it differs from what is stored, or its lease ends before ``renew_before``. True if written.

    Each write gets the next revision, whatever ``wanted`` says.
    """
    stored = route(connection, wanted.environment, wanted.agent)
    if stored is not None:
        same = msgspec.structs.replace(wanted, lease_until=stored.lease_until, revision=stored.revision) == stored
        lasts = wanted.lease_until is None or (stored.lease_until or 0.0) >= renew_before
        if same and lasts and (wanted.lease_until is None) == (stored.lease_until is None):
            return False
    candidate = wanted.candidate
    _upsert(
        connection,
        schema.routes,
        {"environment": wanted.environment, "agent": wanted.agent},
        {
            "stable_behaviour": wanted.stable.behaviour_digest,
            "stable_effective": wanted.stable.effective_digest,
            "candidate_behaviour": candidate.behaviour_digest if candidate else None,
            "candidate_effective": candidate.effective_digest if candidate else None,
            "rollout_id": wanted.rollout_id,
            "weight": wanted.weight,
            "mirror": wanted.mirror,
            "settings": msgspec.to_builtins(wanted.settings),
            "lease_until": wanted.lease_until,
            "revision": (stored.revision if stored else 0) + 1,
        },
    )
    return True


def ready_digests(connection: Connection, since: float) -> set[str]:
    """Effective digests that a host serves: ready, and heard of at ``since`` or later."""
    table = schema.hosts
    return set(
        connection.execute(select(table.c.effective_digest).where(table.c.heartbeat_at >= since).distinct()).scalars()
    )


def hold(connection: Connection, environment: str, agent: str, effective: str) -> str | None:
    """Why this version may not be deployed again; None when it may."""
    table = schema.digest_holds
    return connection.execute(
        select(table.c.reason).where(
            table.c.environment == environment, table.c.agent == agent, table.c.effective_digest == effective
        )
    ).scalar()


def put_hold(
    connection: Connection, environment: str, agent: str, effective: str, *, reason: str, by: str, now: float
) -> None:
    _upsert(
        connection,
        schema.digest_holds,
        {"environment": environment, "agent": agent, "effective_digest": effective},
        {"reason": reason, "held_by": by, "held_at": now},
    )


def drop_hold(connection: Connection, environment: str, agent: str, effective: str) -> None:
    table = schema.digest_holds
    connection.execute(
        delete(table).where(
            table.c.environment == environment, table.c.agent == agent, table.c.effective_digest == effective
        )
    )


def _upsert(connection: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    statement = insert_into(connection, table).values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))


def _rollout_row(rollout: Rollout) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "environment": rollout.environment,
        "agent": rollout.agent,
        "baseline_behaviour": rollout.baseline.behaviour_digest,
        "baseline_effective": rollout.baseline.effective_digest,
        "candidate_behaviour": rollout.candidate.behaviour_digest,
        "candidate_effective": rollout.candidate.effective_digest,
        "plan": msgspec.to_builtins(rollout.plan),
        "settings": msgspec.to_builtins(rollout.settings),
        "status": rollout.status,
        "phase": rollout.phase,
        "phase_started_at": rollout.phase_started_at,
        "reason": rollout.reason,
        "created_by": rollout.created_by,
        "created_at": rollout.created_at,
        "updated_at": rollout.updated_at,
        "ended_at": rollout.ended_at,
    }


def _rollout(row: Row[Any]) -> Rollout:
    def ref(behaviour: str, effective: str) -> VersionRef:
        return VersionRef(agent=row.agent, behaviour_digest=behaviour, effective_digest=effective)

    return Rollout(
        id=row.id,
        environment=row.environment,
        agent=row.agent,
        baseline=ref(row.baseline_behaviour, row.baseline_effective),
        candidate=ref(row.candidate_behaviour, row.candidate_effective),
        plan=msgspec.convert(row.plan, Plan),
        settings=msgspec.convert(row.settings, AgentSettings),
        status=row.status,
        phase=row.phase,
        phase_started_at=row.phase_started_at,
        reason=row.reason,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
    )


def _deployment(row: Row[Any]) -> Deployment:
    previous = None
    if row.previous_behaviour is not None:
        previous = VersionRef(
            agent=row.agent, behaviour_digest=row.previous_behaviour, effective_digest=row.previous_effective
        )
    return Deployment(
        environment=row.environment,
        agent=row.agent,
        stable=VersionRef(
            agent=row.agent, behaviour_digest=row.stable_behaviour, effective_digest=row.stable_effective
        ),
        settings=msgspec.convert(row.settings, AgentSettings),
        previous=previous,
        warm_until=row.warm_until,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )
