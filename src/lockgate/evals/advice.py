"""What would settle an open metric: more trials or more cases. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

from lockgate.evals.measuring import ALPHA, Judged
from lockgate.evals.statistics import more_needed

SURE = 0.8
"""What is advised should bring the squared bound to this share of what is needed, not just to it."""


def what_helps(one: Judged) -> str:
    """Whether more trials or more cases would settle it: trials cannot buy away the cases' own variance."""
    assert one.room is not None
    if one.room.mean <= 0:
        return "as it stands it is worse: more cases would likely show that"
    more = needed(one)
    if more.get("more_trials"):
        return f"run about {more['more_trials']} more trials a case (--buy-trials)"
    return f"add about {more['more_cases']} cases" if more.get("more_cases") else "add cases"


def needed(one: Judged) -> dict[str, int | None]:
    """About how many more trials a case would settle the metric or, where none would, how many more cases.

    Of the squared distance from the mean to its bound, the cases' share stays whatever number of trials is run.
    """
    card = one.card
    gap, reach = _gap(one)
    if gap <= 0 or reach <= 0:
        return {}
    trials = max(1.0, (card.scored + card.errors) / max(1, card.cases))
    case, trial = (card.case_sd or 0.0) ** 2, (card.trial_sd or 0.0) ** 2 / trials
    share = case / (case + trial) if case + trial > 0 else 1.0
    if trials > 1 and reach**2 * share < SURE * gap**2:
        left = SURE * gap**2 / reach**2 - share
        return {"more_trials": max(1, math.ceil(trials * (1 - share) / left - trials))}
    units = one.room.units if one.room is not None else card.units
    return {"more_cases": more_needed(reach / NormalDist().inv_cdf(1 - ALPHA), units, gap)}


def _gap(one: Judged) -> tuple[float, float]:
    """How far the estimate is on the good side, and how far its bound reaches the other way."""
    if one.room is not None and one.metric.margin is not None and one.room.low < 0:
        return one.room.mean, one.room.mean - one.room.low
    metric, card = one.metric, one.card
    if card.mean is None or card.interval is None:
        return 0.0, 0.0
    if metric.minimum is not None:
        return card.mean - metric.minimum, card.mean - card.interval.low
    if metric.maximum is not None:
        return metric.maximum - card.mean, card.interval.high - card.mean
    return 0.0, 0.0
