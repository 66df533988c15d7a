"""What an A/B evaluation found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from lockgate.evals.model import Case, Interval, Quantiles
from lockgate.evals.statistics import by_cluster, estimate

LEVEL = 0.05
"""The chance that the interval leaves the truth out, both sides together."""
Winner = Literal["a", "b", "neither"]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two, beside what the judge says of it."""

    label: str
    trials: int
    failed: int
    mean_cost_usd: float
    mean_output_tokens: float
    latency: Quantiles | None


class Preferred(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of answers: 1, the judge prefers B's; 0, A's; 0.5, neither. None: it gave no usable verdict."""

    case_id: str
    trial: int
    b: float | None
    reason: str
    by_position: bool = False  # the verdict changed with the order of the two


class AbCard(msgspec.Struct, frozen=True, kw_only=True):
    """``preference`` is the share of B, 0..1, ties as halves: above a half, B is preferred."""

    agent: str
    question: str
    dataset: str
    cases: int
    pairs: int
    unscored: int
    preference: float | None
    interval: Interval | None  # at :data:`LEVEL`, cases that share a cluster counted as one
    b_better: int
    a_better: int
    ties: int
    by_position: int  # of the ties: verdicts that changed with the order
    winner: Winner
    a: Side
    b: Side
    judge: str
    seed: str
    spent_nano: int
    pairs_seen: list[Preferred] = []


def summary(cases: Sequence[Case], found: Sequence[Preferred]) -> tuple[float | None, Interval | None, Winner]:
    """The share of pairs that prefer B, its interval, and who wins: only whom the interval leaves no doubt about.

    The unit is the cluster of cases, each case the mean of its pairs; the interval is the gate's own (cluster-robust,
    bounded), at 2.5 % a side.
    """
    by_case: dict[str, list[float]] = {}
    for one in found:
        if one.b is not None:
            by_case.setdefault(one.case_id, []).append(one.b)
    judged = [case for case in cases if case.id in by_case]
    if not judged:
        return None, None, "neither"
    values = np.array([float(np.mean(by_case[case.id])) for case in judged])
    clusters = [case.cluster or f"\0{case.id}" for case in judged]
    result = estimate(by_cluster(values, clusters), (0, 1), alpha=LEVEL / 2)
    winner: Winner = "b" if result.low > 0.5 else "a" if result.high < 0.5 else "neither"
    return result.mean, Interval(result.low, result.high), winner


def tally(found: Sequence[Preferred]) -> Mapping[str, int]:
    """Pairs by what was said of them."""
    return {
        "b_better": sum(one.b is not None and one.b > 0.5 for one in found),
        "a_better": sum(one.b is not None and one.b < 0.5 for one in found),
        "ties": sum(one.b == 0.5 for one in found),
        "by_position": sum(one.by_position for one in found),
        "unscored": sum(one.b is None for one in found),
    }
