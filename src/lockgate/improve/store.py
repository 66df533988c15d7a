"""What triage reads of runs, and its own tables. Each function works inside the caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, func, insert, select, update

from lockgate.errors import NotFound
from lockgate.ids import new_id
from lockgate.improve.model import Candidate, FeedbackRecord, Finding, RunFacts, Status
from lockgate.storage.schema import approvals, candidates, deployments, feedback, rollouts, run_scores, runs
from lockgate.storage.upsert import insert_into

_FACTS = [runs.c[name] for name in RunFacts.__struct_fields__]
_FINDING = Finding.__struct_fields__


def facts(connection: Connection, run_id: str) -> RunFacts:
    """Raises :class:`NotFound`."""
    row = connection.execute(select(*_FACTS).where(runs.c.id == run_id)).mappings().first()
    if row is None:
        raise NotFound(f"no run {run_id!r}", remedy="lockgate runs lists the newest ones")
    return RunFacts(**row)


def inputs(connection: Connection, run_ids: Iterable[str]) -> dict[str, Any]:
    """What each of these runs was asked."""
    found: dict[str, Any] = {}
    wanted = sorted(set(run_ids))
    for start in range(0, len(wanted), 500):  # SQLite takes only so many parameters
        query = select(runs.c.id, runs.c.input).where(runs.c.id.in_(wanted[start : start + 500]))
        found.update((row.id, row.input) for row in connection.execute(query))
    return found


# --- what happened since --------------------------------------------------------------------------------------


def failed_runs(connection: Connection, since: float) -> list[RunFacts]:
    query = select(*_FACTS).where(runs.c.ended_at >= since, runs.c.status == "failed")
    return [RunFacts(**row) for row in connection.execute(query).mappings()]


def scores(connection: Connection, since: float, *, below: float) -> list[tuple[RunFacts, str, float | None, str]]:
    """Live scores under ``below``: the run, the metric, the score, its reason."""
    query = _with_runs(run_scores, run_scores.c.metric, run_scores.c.score, run_scores.c.reason.label("why"))
    rows = connection.execute(query.where(run_scores.c.scored_at >= since, run_scores.c.score < below)).mappings()
    return [(_facts(row), row["metric"], row["score"], row["why"] or "") for row in rows]


def rejected_approvals(connection: Connection, since: float) -> list[tuple[RunFacts, str, str, str]]:
    """The run, the tool, the reason given, and who said no."""
    query = _with_runs(approvals, approvals.c.tool, approvals.c.reason, approvals.c.decided_by)
    rows = connection.execute(query.where(approvals.c.status == "rejected", approvals.c.decided_at >= since)).mappings()
    return [(_facts(row), row["tool"], row["reason"] or "", row["decided_by"] or "somebody") for row in rows]


def bad_ratings(connection: Connection, since: float) -> list[tuple[RunFacts, int, str]]:
    query = _with_runs(feedback, feedback.c.rating, feedback.c.comment)
    rows = connection.execute(query.where(feedback.c.rating < 0, feedback.c.created_at >= since)).mappings()
    return [(_facts(row), row["rating"], row["comment"]) for row in rows]


def rollbacks(connection: Connection, since: float) -> list[tuple[str, str, list[RunFacts]]]:
    """Rollouts rolled back since: id, reason, and the ended runs of the candidate's side."""
    found = select(rollouts.c.id, rollouts.c.reason).where(
        rollouts.c.status == "rolled_back", rollouts.c.ended_at >= since
    )
    result = []
    for rollout_id, why in connection.execute(found).all():
        own = select(*_FACTS).where(
            runs.c.rollout_id == rollout_id, runs.c.arm.in_(("candidate", "shadow")), runs.c.ended_at.is_not(None)
        )
        result.append((rollout_id, why, [RunFacts(**row) for row in connection.execute(own).mappings()]))
    return result


def eval_settings(connection: Connection) -> dict[tuple[str, str], dict[str, Any]]:
    """The ``evals`` block in force, by environment and agent."""
    query = select(deployments.c.environment, deployments.c.agent, deployments.c.settings)
    return {(row.environment, row.agent): row.settings.get("evals") or {} for row in connection.execute(query)}


def run_counts(connection: Connection, since: float) -> dict[tuple[str, str], int]:
    """Ended runs since, by environment and agent."""
    query = select(runs.c.environment, runs.c.agent, func.count()).where(runs.c.ended_at >= since)
    return _counts(connection, query.group_by(runs.c.environment, runs.c.agent))


def scored_counts(connection: Connection, since: float, metric: str) -> dict[tuple[str, str], int]:
    """Runs with a live score of the metric since, by environment and agent."""
    query = select(runs.c.environment, runs.c.agent, func.count()).select_from(
        run_scores.join(runs, runs.c.id == run_scores.c.run_id)
    )
    query = query.where(run_scores.c.metric == metric, run_scores.c.scored_at >= since)
    return _counts(connection, query.group_by(runs.c.environment, runs.c.agent))


# --- candidates -----------------------------------------------------------------------------------------------


def known(connection: Connection, run_ids: Iterable[str]) -> set[tuple[str, str]]:
    """(run, reason) of what is recorded already, of these runs."""
    found: set[tuple[str, str]] = set()
    wanted = sorted(set(run_ids))
    for start in range(0, len(wanted), 500):  # SQLite takes only so many parameters
        query = select(candidates.c.run_id, candidates.c.reason)
        query = query.where(candidates.c.run_id.in_(wanted[start : start + 500]))
        found.update((row.run_id, row.reason) for row in connection.execute(query))
    return found


def add(connection: Connection, finding: Finding, *, weight: float, now: float) -> bool:
    """Record a finding; False when it was there. One about a decided candidate shares its decision."""
    decided = connection.execute(
        select(candidates.c.status, candidates.c.case_id, candidates.c.decided_at, candidates.c.decided_by)
        .where(candidates.c.signature == finding.signature, candidates.c.status != "open")
        .limit(1)
    ).first()
    values = msgspec.structs.asdict(finding) | {"id": new_id("candidate"), "weight": weight, "created_at": now}
    values |= decided._asdict() if decided else {"status": "open"}
    statement = insert_into(connection, candidates).values(values).on_conflict_do_nothing().returning(candidates.c.id)
    return connection.execute(statement).first() is not None


def listed(connection: Connection, *, status: Status | None, agent: str | None, limit: int) -> list[Candidate]:
    """The candidates with the newest findings, newest first."""
    newest = func.max(candidates.c.created_at)
    chosen = select(candidates.c.signature).group_by(candidates.c.signature)
    chosen = chosen.order_by(newest.desc(), candidates.c.signature).limit(limit)
    for column, value in ((candidates.c.status, status), (candidates.c.agent, agent)):
        if value is not None:
            chosen = chosen.where(column == value)
    signatures = list(connection.execute(chosen).scalars())
    grouped = _grouped(connection, candidates.c.signature.in_(signatures))
    return [grouped[signature] for signature in signatures]


def get(connection: Connection, candidate_id: str) -> Candidate:
    """By its id or the id of any of its findings. Raises :class:`NotFound`."""
    query = select(candidates.c.signature).where(candidates.c.id == candidate_id)
    # Reviewers decide one after the other: whoever comes second must see what the first one did.
    signature = connection.execute(query.with_for_update()).scalar()
    if signature is None:
        raise NotFound(f"no candidate {candidate_id!r}", remedy="lockgate triage list")
    return of_signature(connection, signature)


def of_signature(connection: Connection, signature: str) -> Candidate:
    return _grouped(connection, candidates.c.signature == signature)[signature]


def decide(
    connection: Connection, candidate: Candidate, *, status: Status, case_id: str | None, now: float, who: str
) -> None:
    statement = update(candidates).where(candidates.c.signature == candidate.leading.signature)
    connection.execute(statement.values(status=status, case_id=case_id, decided_at=now, decided_by=who))


def add_feedback(connection: Connection, record: FeedbackRecord) -> None:
    connection.execute(insert(feedback).values(**msgspec.structs.asdict(record)))


def _grouped(connection: Connection, where: ColumnElement[bool]) -> dict[str, Candidate]:
    query = select(candidates).where(where).order_by(candidates.c.created_at, candidates.c.id)
    rows: defaultdict[str, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        rows[row["signature"]].append(row)
    return {signature: _candidate(group) for signature, group in rows.items()}


def _candidate(rows: list[RowMapping]) -> Candidate:
    first = rows[0]
    by_run: dict[str, float] = {}
    for row in rows:
        by_run[row["run_id"]] = max(row["weight"], by_run.get(row["run_id"], 0.0))
    return Candidate(
        id=first["id"],
        agent=first["agent"],
        status=first["status"],
        findings=[Finding(**{name: row[name] for name in _FINDING}) for row in rows],
        runs=len(by_run),
        weight=min(1.0, sum(by_run.values())),
        created_at=first["created_at"],
        case_id=first["case_id"],
        decided_at=first["decided_at"],
        decided_by=first["decided_by"],
    )


def _with_runs(table: Any, *columns: ColumnElement[Any]) -> Select[Any]:
    return select(*_FACTS, *columns).select_from(table.join(runs, runs.c.id == table.c.run_id))


def _facts(row: RowMapping) -> RunFacts:
    return RunFacts(**{name: row[name] for name in RunFacts.__struct_fields__})


def _counts(connection: Connection, query: Select[Any]) -> dict[tuple[str, str], int]:
    return {(environment, agent): number for environment, agent, number in connection.execute(query)}
