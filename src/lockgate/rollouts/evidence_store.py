"""The evidence's rows: its saved state, and the units, pairs and counts it is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from lockgate.rollouts.evidence import Pair, RunFacts, State, Traffic, Unit
from lockgate.rollouts.model import Rollout
from lockgate.rollouts.shadow import UNSCORED
from lockgate.storage.schema import assignments, evidence, run_scores, run_steps, runs
from lockgate.storage.upsert import insert_into

_FACTS = (
    runs.c.id,
    runs.c.assignment_key,
    runs.c.status,
    runs.c.cost_nano,
    runs.c.started_at,
    runs.c.ended_at,
    runs.c.attempt,
    runs.c.error_type,
    runs.c.tool_calls,
    runs.c.replayed_calls,
)


def load_state(connection: Connection, key: str) -> State:
    stored = connection.execute(select(evidence.c.state).where(evidence.c.key == key)).scalar()
    return State() if stored is None else msgspec.convert(stored, State, str_keys=True)


def load_traffic(connection: Connection, key: str) -> Traffic:
    stored = connection.execute(select(evidence.c.state).where(evidence.c.key == key)).scalar()
    return Traffic() if stored is None else msgspec.convert(stored, Traffic, str_keys=True)


def save_state(
    connection: Connection, key: str, state: State | Traffic, *, rollout: Rollout, metric: str, now: float
) -> None:
    values = {
        "agent": rollout.agent,
        "environment": rollout.environment,
        "metric": metric,
        "state": msgspec.to_builtins(state, str_keys=True),
        "updated_at": now,
    }
    statement = insert_into(connection, evidence).values(key=key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=values))


def units(connection: Connection, rollout_ids: Sequence[str], after: int, limit: int) -> list[Unit]:
    """The units assigned after number ``after``, in order, with all their runs so far."""
    heads = connection.execute(
        select(assignments)
        .where(assignments.c.rollout_id.in_(rollout_ids), assignments.c.seq > after)
        .order_by(assignments.c.seq)
        .limit(limit)
    ).all()
    if not heads:
        return []
    same = and_(runs.c.rollout_id == assignments.c.rollout_id, runs.c.assignment_key == assignments.c.key)
    rows = connection.execute(
        select(assignments.c.seq, *_FACTS)
        .select_from(assignments.join(runs, same))
        .where(
            assignments.c.rollout_id.in_(rollout_ids),
            assignments.c.seq.between(heads[0].seq, heads[-1].seq),
            runs.c.arm == assignments.c.arm,  # a candidate's run that fell back to the stable version is neither's
        )
        .order_by(runs.c.started_at, runs.c.id)
    ).all()
    scores = _scores(connection, [row.id for row in rows])
    mine: dict[int, list[RunFacts]] = {}
    for row in rows:
        mine.setdefault(row.seq, []).append(_facts(row, scores))
    return [
        Unit(
            seq=head.seq,
            key=head.key,
            candidate=head.arm == "candidate",
            weight=head.weight / 100,
            assigned_at=head.assigned_at,
            runs=tuple(mine.get(head.seq, ())),
        )
        for head in heads
    ]


def pairs(connection: Connection, rollout_ids: Sequence[str], after: tuple[float, str], limit: int) -> list[Pair]:
    """The shadow runs that began after ``after`` (time, run id), in order, each with its primary."""
    at, run_id = after
    later = or_(runs.c.started_at > at, and_(runs.c.started_at == at, runs.c.id > run_id))
    shadows = connection.execute(
        select(*_FACTS, runs.c.primary_run)
        .where(runs.c.rollout_id.in_(rollout_ids), runs.c.arm == "shadow", later)
        .order_by(runs.c.started_at, runs.c.id)
        .limit(limit)
    ).all()
    if not shadows:
        return []
    primaries = {
        row.id: row
        for part in _parts([row.primary_run for row in shadows])
        for row in connection.execute(select(*_FACTS).where(runs.c.id.in_(part)))
    }
    seen = set(_shadowed_keys(connection, rollout_ids, [row.assignment_key for row in shadows], ~later))
    scores = _scores(connection, [row.id for row in shadows] + list(primaries))
    asked = _world_calls(connection, [row.id for row in shadows])
    found = []
    for row in shadows:
        primary = primaries.get(row.primary_run)
        if primary is None:  # its record was removed: there is nothing to compare with
            continue
        first = row.assignment_key not in seen
        seen.add(row.assignment_key)
        mine = msgspec.structs.replace(_facts(row, scores), tool_calls=asked.get(row.id, 0))
        found.append(Pair(at=row.started_at, primary=_facts(primary, scores), shadow=mine, first=first))
    return found


def baseline_runs(connection: Connection, rollout: Rollout, began_at: float, *, scored: bool = False) -> list[RunFacts]:
    """Ended live runs of the baseline, for the frozen reference: the latest before the rollout, the first after."""
    mine = (
        runs.c.environment == rollout.environment,
        runs.c.agent == rollout.agent,
        runs.c.effective_digest == rollout.baseline.effective_digest,
        runs.c.arm.in_(("stable", "direct")),
        runs.c.status.in_(("completed", "failed")),
    )
    before = connection.execute(
        select(*_FACTS).where(*mine, runs.c.started_at < began_at).order_by(runs.c.started_at.desc()).limit(2000)
    ).all()
    after = connection.execute(
        select(*_FACTS).where(*mine, runs.c.started_at >= began_at).order_by(runs.c.started_at).limit(1000)
    ).all()
    scores = _scores(connection, [row.id for row in before]) if scored else {}
    return [_facts(row, scores) for row in (*before, *after)]


def phase_units(connection: Connection, rollout: Rollout, entered: int) -> int:
    """Candidate units assigned in this phase that have entered the evidence (number ``entered`` is the last)."""
    query = select(func.count()).where(
        assignments.c.rollout_id == rollout.id,
        assignments.c.arm == "candidate",
        assignments.c.assigned_at >= rollout.phase_started_at,
        assignments.c.seq <= entered,
    )
    return int(connection.execute(query).scalar_one())


def fast_counts(connection: Connection, rollout_ids: Sequence[str]) -> tuple[int, int]:
    """(candidate units so far, those with a failure), shadows included, whether or not they have ended."""
    assigned = connection.execute(
        select(func.count()).where(assignments.c.rollout_id.in_(rollout_ids), assignments.c.arm == "candidate")
    ).scalar_one()
    mine = (runs.c.rollout_id.in_(rollout_ids), or_(runs.c.error_type.is_(None), runs.c.error_type.not_in(UNSCORED)))
    shadowed = _count_keys(connection, *mine, runs.c.arm == "shadow")
    blamed = or_(runs.c.error_type.is_(None), runs.c.error_type.not_in(_OTHERS_DOING))
    failed = _count_keys(connection, runs.c.rollout_id.in_(rollout_ids), runs.c.arm == "candidate", _FAILED, blamed)
    shadow_failed = _count_keys(connection, *mine, runs.c.arm == "shadow", _FAILED)
    return int(assigned) + shadowed, failed + shadow_failed


_FAILED = runs.c.status == "failed"
_OTHERS_DOING = (
    "approval_expired",
    "approval_rejected",
    "budget_exceeded",
    "cancelled",
    "input_invalid",
    "rate_limited",
)  # failures that say nothing of the candidate: an absolute rate, unlike a ratio, has no baseline to share them with


def _count_keys(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    keys = select(runs.c.rollout_id, runs.c.assignment_key).where(*conditions).distinct().subquery()
    return int(connection.execute(select(func.count()).select_from(keys)).scalar_one())


def _shadowed_keys(
    connection: Connection, rollout_ids: Sequence[str], keys: Iterable[str], condition: ColumnElement[bool]
) -> list[str]:
    return [
        key
        for part in _parts(sorted(set(keys)))
        for key in connection.execute(
            select(runs.c.assignment_key)
            .where(
                runs.c.rollout_id.in_(rollout_ids),
                runs.c.assignment_key.in_(part),
                runs.c.arm == "shadow",
                condition,
            )
            .distinct()
        ).scalars()
    ]


def _scores(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for part in _parts(run_ids):
        for row in connection.execute(select(run_scores).where(run_scores.c.run_id.in_(part))):
            found.setdefault(row.run_id, {})[row.metric] = row.score
    return found


def _world_calls(connection: Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """By run: the tool calls that read or change the world. Pure ones need no record, and are carried out."""
    found: dict[str, int] = {}
    for part in _parts(run_ids):
        rows = connection.execute(
            select(run_steps.c.run_id, func.count().label("calls"))
            .where(run_steps.c.run_id.in_(part), run_steps.c.kind == "tool", run_steps.c.effect.in_(("read", "write")))
            .group_by(run_steps.c.run_id)
        )
        found.update({row.run_id: int(row.calls) for row in rows})
    return found


def _parts(values: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _facts(row: Any, scores: dict[str, dict[str, float | None]]) -> RunFacts:
    return RunFacts(
        id=row.id,
        key=row.assignment_key,
        status=row.status,
        cost_nano=row.cost_nano,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=row.attempt,
        error_type=row.error_type,
        tool_calls=row.tool_calls,
        replayed_calls=row.replayed_calls,
        scores=scores.get(row.id, {}),
    )
