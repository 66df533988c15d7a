"""A metric's figures: its mean, its difference from the baseline, and their intervals. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockgate.evals.grid import ERROR, MISSING, SCORED, SKIPPED, UNSCORED, Grid, case_means
from lockgate.evals.model import Case, Interval, Metric, MetricCard, Rubric
from lockgate.evals.statistics import (
    Estimate,
    Floats,
    Units,
    by_cluster,
    detectable,
    estimate,
    p_below_zero,
    spread,
    standard_error,
)

ALPHA = 0.05

_COUNTED = {"scored": SCORED, "skipped": SKIPPED, "unscored": UNSCORED, "errors": ERROR, "missing": MISSING}


class Judged(NamedTuple):
    """A metric with its figures, and each case's mean."""

    metric: Metric
    card: MetricCard
    means: Floats  # of each case, worst value where a trial is missing
    baseline: Floats | None = None
    room: Estimate | None = None  # how far from being worse by more than the margin


def measure(
    metric: Metric,
    rubric: Rubric,
    cases: Sequence[Case],
    grid: Grid,
    baseline: dict[str, Grid] | None,
    clusters: NDArray[np.str_],
    alpha: float,
) -> Judged:
    means = case_means(metric, grid)
    kept = ~np.isnan(means)
    emphasis = np.array([_emphasis(case, rubric.slices) for case in cases])
    counts = {name: int(np.count_nonzero(grid.status == code)) for name, code in _COUNTED.items()}
    known: dict[str, Any] = {
        "name": metric.name,
        "scorer": metric.scorer,
        "unit": metric.unit,
        "direction": metric.direction,
        "blocking": metric.blocking,
        "verdict": None,
        "reason": "",
        "minimum": metric.minimum,
        "maximum": metric.maximum,
        "margin": metric.margin,
        "strict": metric.strict,
        "cases": int(kept.sum()),
        **counts,
    }
    if not kept.any():
        return Judged(metric, MetricCard(**known), means)
    whole = estimate(
        by_cluster(means[kept], clusters[kept], emphasis[kept]), (0, 1) if metric.bounded else None, alpha=alpha
    )
    traffic = emphasis[kept] * np.array([case.weight for case, keep in zip(cases, kept, strict=True) if keep])
    parts = spread(grid.values[kept])
    known |= {
        "mean": whole.mean,
        "interval": Interval(whole.low, whole.high),
        "units": whole.units,
        "traffic_mean": float(np.average(means[kept], weights=traffic)),
        "case_sd": parts.case,
        "trial_sd": parts.trial,
    }
    other = (
        None
        if baseline is None or metric.name not in baseline
        else case_means(metric, baseline[metric.name], complete=False)
    )
    both = kept if other is None else kept & ~np.isnan(other)
    if other is None or not both.any():
        return Judged(metric, MetricCard(**known), means)
    room = _room(metric, means[both], other[both], clusters[both], emphasis[both])
    change = by_cluster(means[both] - other[both], clusters[both], emphasis[both])
    around = estimate(change, (-1, 1) if metric.bounded else None, alpha=alpha)
    known |= {
        "baseline_mean": float(np.average(other[both], weights=emphasis[both])),
        "difference": around.mean,
        "difference_interval": Interval(around.low, around.high),
        "p_worse": p_below_zero(room, _room_bounds(metric)) if metric.bounded or metric.margin is not None else None,
        "detectable": detectable(standard_error(change), len(change.sums), bounded=metric.bounded, alpha=alpha),
    }
    return Judged(metric, MetricCard(**known), means, other, estimate(room, _room_bounds(metric), alpha=alpha))


def _emphasis(case: Case, slices: dict[str, float]) -> float:
    weight = 1.0
    for tag in case.tags:
        weight *= slices.get(tag, 1.0)
    return weight


def _room(metric: Metric, means: Floats, other: Floats, clusters: NDArray[np.str_], emphasis: Floats) -> Units:
    """How far each case is from being worse than the baseline by more than the margin; negative when it is."""
    margin = metric.margin or 0.0
    sign = 1.0 if metric.direction == "higher" else -1.0
    if metric.bounded:
        return by_cluster(sign * (means - other) + margin, clusters, emphasis)
    return by_cluster(sign * (means - (1 - sign * margin) * other), clusters, emphasis)


def _room_bounds(metric: Metric) -> tuple[float, float] | None:
    margin = metric.margin or 0.0
    return (margin - 1, margin + 1) if metric.bounded else None
