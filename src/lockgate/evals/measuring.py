"""A metric's figures: its mean, its difference from the baseline, and their intervals. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockgate.evals.grid import ERROR, MISSING, SCORED, SKIPPED, UNSCORED, Grid, case_means
from lockgate.evals.judges.correction import corrected_by_labels
from lockgate.evals.model import Case, Interval, Metric, MetricCard
from lockgate.evals.sequential import Level
from lockgate.evals.statistics import (
    Estimate,
    Floats,
    Units,
    by_cluster,
    detectable,
    estimate,
    estimates,
    p_below_zero,
    spread,
    standard_error,
)

_COUNTED = {"scored": SCORED, "skipped": SKIPPED, "unscored": UNSCORED, "errors": ERROR, "missing": MISSING}


class Cases(NamedTuple):
    """What of the cases decides: their clusters, as numbers, and their weights."""

    cases: Sequence[Case]
    clusters: NDArray[np.int64]
    emphasis: Floats  # by the rubric's slices
    traffic: Floats


class Labels(NamedTuple):
    """Answers that both the judge and a person have scored, in 0..1."""

    judge: Floats
    human: Floats
    weight: Floats | None = None  # answers that each stands for; None: they were drawn evenly


class Judged(NamedTuple):
    """A metric with its figures, and each case's mean."""

    metric: Metric
    card: MetricCard
    means: Floats  # of each case, worst value where a trial is missing
    baseline: Floats | None = None
    mean: Estimate | None = None  # with the bounds that can say pass
    fails: Estimate | None = None  # with those that can say fail
    units: Units | None = None
    room: Estimate | None = None  # how far from being worse by more than the margin
    room_units: Units | None = None
    noise: float = 0.0  # trials' share of the variance of the difference or, without a baseline, of the mean


def sorted_out(cases: Sequence[Case], slices: Mapping[str, float]) -> Cases:
    """``slices`` are the rubric's weights by tag."""
    names = [f"c{case.cluster}" if case.cluster else f"i{case.id}" for case in cases]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return Cases(
        cases,
        np.fromiter((number[name] for name in names), dtype=np.int64, count=len(names)),
        np.array([_emphasis(case, slices) for case in cases]) if slices else np.ones(len(cases)),
        np.array([case.weight for case in cases]),
    )


def measure(
    metric: Metric,
    cases: Cases,
    grid: Grid,
    baseline: Mapping[str, Grid] | None,
    at: Level,
    labels: Labels | None = None,
) -> Judged:
    """``labels``: people's, from which what the judge says of the cases is corrected."""
    means = case_means(metric, grid)
    kept = ~np.isnan(means)
    counts = {name: int(np.count_nonzero(grid.status == code)) for name, code in _COUNTED.items()}
    known: dict[str, Any] = {
        "name": metric.name,
        "scorer": metric.scorer,
        "unit": metric.unit,
        "direction": metric.direction,
        "blocking": metric.blocking,
        "verdict": None,
        "reason": "",
        "aggregate": metric.aggregate,
        "passes": metric.passes,
        "minimum": metric.minimum,
        "maximum": metric.maximum,
        "margin": metric.margin,
        "strict": metric.strict,
        "cases": int(kept.sum()),
        **counts,
    }
    if not kept.any():
        return Judged(metric, MetricCard(**known), means)
    bounds = (0.0, 1.0) if metric.bounded else None
    whole = by_cluster(means[kept], cases.clusters[kept], cases.emphasis[kept])
    decides, fails, shown = estimates(whole, bounds, (at.holds, at.bound, at.shown))
    shift = 0.0
    if labels is not None and metric.bounded and not metric.aggregate:
        known |= {"judge_mean": decides.mean, "labels": len(labels.human)}
        shift = float(np.average(labels.human - labels.judge, weights=labels.weight))
        decides, fails, shown = (
            corrected_by_labels(whole, *labels, alpha=level) for level in (at.holds, at.bound, at.shown)
        )
    parts = spread(grid.values[kept])
    known |= {
        "mean": shown.mean,
        "interval": Interval(shown.low, shown.high),
        "units": len(whole.sums),
        "traffic_mean": float(np.average(means[kept], weights=(cases.emphasis * cases.traffic)[kept])) + shift,
        "case_sd": parts.case,
        "trial_sd": parts.trial,
    }
    noise = _noise(parts.trial**2 / max(1, grid.values.shape[1]), means[kept])
    other = (
        None
        if baseline is None or metric.name not in baseline
        else case_means(metric, baseline[metric.name], complete=False)
    )
    both = kept if other is None else kept & ~np.isnan(other)
    if other is None or not both.any():
        return Judged(metric, MetricCard(**known), means, mean=decides, fails=fails, units=whole, noise=noise)
    assert baseline is not None
    clusters, emphasis = cases.clusters[both], cases.emphasis[both]
    room = _room(metric, means[both], other[both], clusters, emphasis)
    change = by_cluster(means[both] - other[both], clusters, emphasis)
    around = estimate(change, (-1, 1) if metric.bounded else None, alpha=at.shown)
    before = baseline[metric.name].values
    varies = parts.trial**2 / max(1, grid.values.shape[1]) + spread(before[both]).trial ** 2 / max(1, before.shape[1])
    tested = metric.bounded or metric.margin is not None
    known |= {
        "baseline_mean": float(np.average(other[both], weights=emphasis)) + shift,
        "difference": around.mean,
        "difference_interval": Interval(around.low, around.high),
        "p_worse": p_below_zero(room, room_bounds(metric)) if tested else None,
        "detectable": detectable(standard_error(change), len(change.sums), bounded=metric.bounded, alpha=at.bound),
    }
    return Judged(
        metric,
        MetricCard(**known),
        means,
        other,
        mean=decides,
        fails=fails,
        units=whole,
        room=estimate(room, room_bounds(metric), alpha=at.holds),
        room_units=room,
        noise=_noise(varies, means[both] - other[both]),
    )


def _noise(trials: float, values: Floats) -> float:
    """The share of the variance of the cases' ``values`` that is their trials'."""
    whole = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    return min(1.0, trials / whole) if whole > 0 else 0.0


def _emphasis(case: Case, slices: Mapping[str, float]) -> float:
    weight = 1.0
    for tag in case.tags:
        weight *= slices.get(tag, 1.0)
    return weight


def _room(metric: Metric, means: Floats, other: Floats, clusters: NDArray[np.int64], emphasis: Floats) -> Units:
    """How far each case is from being worse than the baseline by more than the margin; negative when it is."""
    margin = metric.margin or 0.0
    sign = 1.0 if metric.direction == "higher" else -1.0
    if metric.bounded:
        return by_cluster(sign * (means - other) + margin, clusters, emphasis)
    return by_cluster(sign * (means - (1 - sign * margin) * other), clusters, emphasis)


def room_bounds(metric: Metric) -> tuple[float, float] | None:
    """What one case's distance from being worse by the margin can be."""
    margin = metric.margin or 0.0
    return (margin - 1, margin + 1) if metric.bounded else None
