"""Shadow pairs: which of them count, and in which order they enter the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lockgate.rollouts.evidence import Observation, Pair, RunFacts, Traffic, observe, qualities
from lockgate.rollouts.model import Plan

UNSCORED = frozenset(
    {"unscored", "shadow_unsupported", "diverged", "host_lost", "cancelled", "budget_exceeded", "rate_limited"}
)
"""``error_type`` of shadows that ended without having a chance: they say nothing about the candidate."""
SETTLE = 1.0
"""Seconds a shadow must be old before it is read, so that none with an earlier start appears behind the cursor."""


def is_complete(pair: Pair, now: float, plan: Plan) -> bool:
    """Whether both runs ended and are scored, or the pair is past the unit deadline."""
    if now < pair.at + SETTLE:
        return False
    return now >= pair.at + plan.unit_deadline or all(_done(run, plan) for run in (pair.primary, pair.shadow))


def complete_prefix(pairs: Sequence[Pair], now: float, plan: Plan) -> list[Pair]:
    """The pairs that may enter: in the order they began, up to the first that is not complete."""
    prefix: list[Pair] = []
    for pair in pairs:
        if not is_complete(pair, now, plan):
            break
        prefix.append(pair)
    return prefix


def fidelity(run: RunFacts) -> float:
    """The share of the shadow's tool calls that was answered from the record; 1 when it made none."""
    return run.replayed_calls / run.tool_calls if run.tool_calls else 1.0


def outcome(pair: Pair, plan: Plan) -> tuple[Observation, Observation] | None:
    """(primary, shadow), or None when the pair is unscored.

    Unscored: not the first pair of its assignment key (one observation each), a shadow that had no chance, a primary
    that failed (there is nothing to replay), or a replay below the fidelity floor.
    """
    if not pair.first or pair.primary.status != "completed" or pair.shadow.status not in ("completed", "failed"):
        return None
    if pair.shadow.error_type in UNSCORED or fidelity(pair.shadow) < plan.fidelity:
        return None
    primary, shadow = observe([pair.primary], plan), observe([pair.shadow], plan)
    return None if primary is None or shadow is None else (primary, shadow)


def add_traffic(traffic: Traffic, pair: Pair, *, scored: bool) -> Traffic:
    """Count the pair, and what its shadow called."""
    if (pair.at, pair.shadow.id) <= (traffic.pair_at, traffic.pair_id):
        return traffic
    return msgspec.structs.replace(
        traffic,
        pair_at=pair.at,
        pair_id=pair.shadow.id,
        pairs=traffic.pairs + scored,
        unscored_pairs=traffic.unscored_pairs + (not scored),
        tool_calls=traffic.tool_calls + pair.shadow.tool_calls,
        replayed_calls=traffic.replayed_calls + pair.shadow.replayed_calls,
    )


def _done(run: RunFacts, plan: Plan) -> bool:
    if run.status != "completed":
        return run.status != "running"
    return all(spec.name in run.scores for spec in qualities(plan))
