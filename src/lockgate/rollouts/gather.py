"""Brings a rollout's evidence up to date: loads the state, lets what is complete enter, reads off where it stands.

Only reads; :func:`save` writes what changed, inside the caller's transaction.
"""

from __future__ import annotations

import statistics

import msgspec
from sqlalchemy import Connection

from lockgate.rollouts import evidence, evidence_store, shadow, store
from lockgate.rollouts.evidence import Observation, RunFacts, State, Traffic
from lockgate.rollouts.model import MetricSpec, Profile, Reading, Rollout, Situation
from lockgate.settings import store as settings_store
from lockgate.settings.model import Snapshot

BATCH = 1000
"""Units and pairs looked at in one tick."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about one candidate over one baseline in one environment."""

    traffic: Traffic
    states: dict[str, State]


def load(connection: Connection, rollout: Rollout) -> Evidence:
    """The evidence as it was last saved, by this rollout or an earlier one of the same pair."""
    return Evidence(
        traffic=evidence_store.load_traffic(connection, _traffic_key(rollout)),
        states={spec.name: evidence_store.load_state(connection, _key(rollout, spec)) for spec in rollout.plan.metrics},
    )


def empty(rollout: Rollout, known: Evidence) -> Evidence:
    """No evidence but the frozen references of ``known``: the start of a computation from the runs."""
    return Evidence(
        traffic=Traffic(),
        states={name: State(reference=state.reference) for name, state in known.states.items()},
    )


def bring_up_to_date(connection: Connection, rollout: Rollout, known: Evidence, now: float) -> Evidence:
    """``known`` with the units and pairs that have become complete since, in order, at most :data:`BATCH` of each."""
    plan = rollout.plan
    family = store.family(connection, rollout)
    states = _with_references(connection, rollout, known.states, family)
    traffic = known.traffic
    active = {
        spec.name: spec
        for spec in plan.metrics
        if not evidence.needs_reference(spec) or states[spec.name].reference is not None
    }
    pair_cursor = min(
        ((state.pair_at, state.pair_id) for name, state in states.items() if name in active),
        default=(traffic.pair_at, traffic.pair_id),
    )
    pairs = evidence_store.pairs(connection, family, min(pair_cursor, (traffic.pair_at, traffic.pair_id)), BATCH)
    for pair in shadow.complete_prefix(pairs, now, plan):
        both = shadow.outcome(pair, plan)
        traffic = shadow.add_traffic(traffic, pair, scored=both is not None)
        for name, spec in active.items():
            states[name] = evidence.add_pair(spec, states[name], pair, both)
    seq = min((states[name].seq for name in active), default=traffic.seq)
    units = evidence_store.units(connection, family, min(seq, traffic.seq), BATCH)
    for unit in evidence.complete_prefix(units, now, plan):
        seen = evidence.observe(unit.runs, plan)
        traffic = evidence.add_traffic(traffic, unit, seen)
        for name, spec in active.items():
            states[name] = evidence.add_unit(spec, states[name], unit, seen)
    return Evidence(traffic=traffic, states=states)


def readings(rollout: Rollout, known: Evidence) -> tuple[Reading, ...]:
    return tuple(evidence.read(spec, known.states[spec.name]) for spec in rollout.plan.metrics)


def situation(connection: Connection, rollout: Rollout, known: Evidence, *, now: float, ready: bool) -> Situation:
    """Everything :func:`~lockgate.rollouts.decision.decide` asks for."""
    plan = rollout.plan
    wealth, note = 1.0, ""
    if plan.catastrophe is not None:
        units, failed = evidence_store.fast_counts(connection, store.family(connection, rollout))
        wealth = evidence.catastrophe(units, failed, plan.catastrophe)
        note = f"{failed} of {units} candidate units failed"
    split = known.traffic.split.log_split()
    return Situation(
        phase=rollout.phase,
        phase_seconds=now - rollout.phase_started_at,
        phase_units=evidence_store.phase_units(connection, rollout, known.traffic.seq),
        pairs=known.traffic.pairs,
        readings=readings(rollout, known),
        catastrophe=wealth,
        catastrophe_note=note,
        sample_ratio=evidence.wealth(split),
        ready=ready,
        paused="paused" if rollout.status == "paused" else _set_to_pause(connection, rollout),
        age=now - rollout.created_at,
    )


def _set_to_pause(connection: Connection, rollout: Rollout) -> str:
    known = Snapshot(settings_store.current(connection))
    found = known.find("rollout.pause", environment=rollout.environment, agent=rollout.agent)
    if found is None or not found.value:
        return ""
    why = f": {found.reason}" if found.reason else ""
    return f"paused by the setting rollout.pause ({found.scope}), by {found.actor}{why}"


def save(connection: Connection, rollout: Rollout, old: Evidence, new: Evidence, now: float) -> None:
    """Write the states that changed."""
    if new.traffic != old.traffic:
        evidence_store.save_state(
            connection, _traffic_key(rollout), new.traffic, rollout=rollout, metric="traffic", now=now
        )
    for spec in rollout.plan.metrics:
        if new.states[spec.name] != old.states[spec.name]:
            evidence_store.save_state(
                connection, _key(rollout, spec), new.states[spec.name], rollout=rollout, metric=spec.name, now=now
            )


def traffic_seen(connection: Connection, rollout: Rollout) -> Profile:
    """What the baseline's recent units were like, to simulate with; what is assumed, while there are too few."""
    listed = evidence_store.baseline_runs(connection, rollout, rollout.created_at, scored=True)
    units = [seen for _, seen in _baseline_units(listed, rollout)]
    assumed = Profile()
    if len(units) < max(rollout.plan.min_reference, 2):
        return assumed
    scores = [value for unit in units for value in unit.scores.values()]
    costs = [float(unit.cost_nano) for unit in units]
    mean_cost = sum(costs) / len(costs)
    return Profile(
        error_rate=max(sum(unit.error for unit in units), 0.5) / len(units),
        score=sum(scores) / len(scores) if scores else assumed.score,
        score_spread=statistics.pstdev(scores) if scores else assumed.score_spread,
        cost_spread=statistics.pstdev(costs) / mean_cost if mean_cost else 0.0,
        source=f"{len(units)} units of {rollout.baseline.behaviour_digest.removeprefix('sha256:')[:12]}",
    )


def _with_references(
    connection: Connection, rollout: Rollout, states: dict[str, State], family: list[str]
) -> dict[str, State]:
    """The states, with the references that can be frozen by now."""
    missing = [
        spec for spec in rollout.plan.metrics if evidence.needs_reference(spec) and states[spec.name].reference is None
    ]
    states = dict(states)
    if not missing:
        return states
    began_at = store.began_at(connection, family)
    baseline = _baseline_units(evidence_store.baseline_runs(connection, rollout, began_at), rollout)
    for spec in missing:
        reference = evidence.freeze(spec, baseline, began_at, rollout.plan.min_reference)
        states[spec.name] = msgspec.structs.replace(states[spec.name], reference=reference)
    return states


def _baseline_units(runs: list[RunFacts], rollout: Rollout) -> list[tuple[float, Observation]]:
    by_key: dict[str, list[RunFacts]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run)
    found = []
    for mine in by_key.values():
        seen = evidence.observe(mine, rollout.plan)
        if seen is not None:
            found.append((min(run.started_at for run in mine), seen))
    return found


def _key(rollout: Rollout, spec: MetricSpec) -> str:
    return evidence.metric_key(
        rollout.agent,
        rollout.environment,
        rollout.baseline.effective_digest,
        rollout.candidate.effective_digest,
        msgspec.to_builtins(spec),
    )


def _traffic_key(rollout: Rollout) -> str:
    return evidence.metric_key(
        rollout.agent,
        rollout.environment,
        rollout.baseline.effective_digest,
        rollout.candidate.effective_digest,
        {"name": "traffic"},
    )
