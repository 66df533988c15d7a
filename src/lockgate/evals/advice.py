"""What would settle an open metric: more trials or more cases. Pure.

The estimator itself is asked: with the scatter that so many more trials would leave, or with so many more clusters like
those that are there. Trials cannot remove the scatter between cases, nor the doubt about kinds of case never seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from lockgate.evals.measuring import Judged, room_bounds
from lockgate.evals.model import Metric
from lockgate.evals.sequential import ALPHA
from lockgate.evals.statistics import Estimate, Units, estimate, forecast

SLACK = 1.1
"""What is advised should bring the bound a tenth further than needed, not just there."""
MOST_TRIALS = 64
MOST_CASES = 64.0
"""More than so many times the cases is no advice."""


def in_words(one: Judged, more: Mapping[str, int | None]) -> str:
    """What would settle the metric against its baseline, where ``more`` is what :func:`needed` found."""
    if one.room is None or one.metric.margin is None or one.room.low >= 0:
        return ""
    if one.room.mean <= 0:
        return "as it stands it is worse: more cases would likely show that"
    if more.get("more_trials"):
        return f"run about {more['more_trials']} more trials a case (--buy-trials)"
    if more.get("more_cases"):
        return f"more cases are missing, not more trials: add about {more['more_cases']}"
    return "it is too close to the margin to tell"


def needed(one: Judged) -> dict[str, int | None]:
    """About how many more trials a case would settle the metric or, where none would, how many more cases."""
    card = one.card
    trials = max(1, round((card.scored + card.errors) / max(1, card.cases)))
    found = _open(one)
    if found is None:
        return {}
    settles, units = found
    if one.noise > 0 and one.metric.aggregate == "":
        times = 2
        while trials * times <= MOST_TRIALS:
            if settles(forecast(units, noise=math.sqrt(1 - one.noise * (1 - 1 / times)))):
                return {"more_trials": trials * (times - 1)}
            times *= 2
    few, many = 1.0, 2.0
    while not settles(forecast(units, more=many)):
        few, many = many, many * 2
        if many > MOST_CASES:
            return {}
    for _ in range(4):
        middle = (few + many) / 2
        few, many = (few, middle) if settles(forecast(units, more=middle)) else (middle, many)
    return {"more_cases": max(1, math.ceil(card.cases * (many - 1)))}


def _open(one: Judged) -> tuple[Callable[[Units], bool], Units] | None:
    """What is still open, as a test of whether such data would settle it, and the data."""
    if one.room is not None and one.room_units is not None and one.metric.margin is not None and one.room.low < 0:
        bounds = room_bounds(one.metric)

        def within(units: Units) -> bool:
            return _above(estimate(units, bounds, alpha=ALPHA), 0.0)

        return None if one.room.mean <= 0 else (within, one.room_units)
    return _threshold(one.metric, one)


def _threshold(metric: Metric, one: Judged) -> tuple[Callable[[Units], bool], Units] | None:
    limit = metric.minimum if metric.minimum is not None else metric.maximum
    if limit is None or one.mean is None or one.units is None or not metric.strict:
        return None
    sign = 1.0 if metric.minimum is not None else -1.0
    if sign * (one.mean.mean - limit) <= 0:
        return None
    bounds = (0.0, 1.0) if metric.bounded else None

    def beyond(units: Units) -> bool:
        found = estimate(units, bounds, alpha=ALPHA)
        return _above(found, limit) if sign > 0 else found.high + (SLACK - 1) * (found.high - found.mean) <= limit

    return beyond, one.units


def _above(found: Estimate, limit: float) -> bool:
    return found.mean - SLACK * (found.mean - found.low) >= limit
