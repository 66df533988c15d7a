"""The verdict: pass, fail or inconclusive, from scores alone. Pure.

A metric fails when its mean misses its threshold, or when it is surely worse than the baseline by more than the margin
(Holm over the metrics). It passes when its threshold holds and it is surely not worse by the margin. Without a margin,
scores and rates pass when they are not surely worse, and cost and time are held against their threshold alone. Failed
and missing trials count as the worst value. The whole gate fails when one blocking metric fails, and passes when all
pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lockgate.evals.figures import show, signed
from lockgate.evals.model import Case, Change, Flaky, Interval, Metric, MetricCard, Rubric, Slice, Verdict
from lockgate.evals.statistics import (
    Estimate,
    Floats,
    Units,
    by_cluster,
    detectable,
    estimate,
    holm,
    more_needed,
    p_below_zero,
    spread,
    standard_error,
)

MISSING, SCORED, SKIPPED, UNSCORED, ERROR = range(5)
"""What became of one metric on one trial, in :class:`Grid`."""

UNSCORED_SHARE = 0.1
"""A metric whose judge left more than this share without a usable answer cannot pass."""
SMALL_SLICE = 3
"""A slice of fewer cases is not shown; larger ones are pulled towards the whole by :data:`SHRINK` cases."""
SHRINK = 4
SHOWN = 20
SURE = 0.8
"""What is advised should bring the squared bound to this share of what is needed, not just to it."""

ALPHA = 0.05


class Grid(NamedTuple):
    """One metric on cases × trials: values (NaN where there is none) and what became of each."""

    values: Floats
    status: NDArray[np.uint8]


class Decision(NamedTuple):
    """What the gate says, and what it rests on."""

    verdict: Verdict
    reasons: list[str]
    metrics: list[MetricCard]
    slices: list[Slice]
    broken: list[Change]
    fixed: list[Change]
    flaky: list[str]
    flaky_cases: list[Flaky]


class _Judged(NamedTuple):
    metric: Metric
    card: MetricCard
    means: Floats  # of each case, worst value where a trial is missing
    baseline: Floats | None = None
    room: Estimate | None = None  # how far from being worse by more than the margin


def decide(
    rubric: Rubric,
    cases: Sequence[Case],
    candidate: dict[str, Grid],
    baseline: dict[str, Grid] | None,
    *,
    alpha: float = ALPHA,
) -> Decision:
    """The verdict on ``candidate``, alone or against ``baseline`` (metric name → grid, a row for each of ``cases``).

    ``alpha`` is what each bound may err with: less than 5 % where this is one look of several.
    """
    clusters = np.array([f"c{case.cluster}" if case.cluster else f"i{case.id}" for case in cases])
    judged = [
        _measure(metric, rubric, cases, candidate[metric.name], baseline, clusters, alpha) for metric in rubric.metrics
    ]
    tested = {one.card.name: one.card.p_worse for one in judged if one.metric.blocking and one.card.p_worse is not None}
    surely_worse = holm(tested, alpha)
    advisory_worse = {
        one.card.name
        for one in judged
        if not one.metric.blocking and one.card.p_worse is not None and one.card.p_worse <= alpha
    }
    cards = []
    for one in judged:
        verdict, reason = _judge(one, candidate[one.metric.name], cases, one.card.name in surely_worse | advisory_worse)
        needed = _needed(one) if verdict == "inconclusive" else {}
        cards.append(msgspec.structs.replace(one.card, verdict=verdict, reason=reason, **needed))
    flaky = _flaky(judged, cases, candidate)
    blocking = [card for card in cards if card.blocking]
    verdicts = {card.verdict for card in blocking}
    overall: Verdict = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    reasons = [f"{card.name}: {card.reason}" for card in blocking if card.verdict == overall and card.reason]
    return Decision(
        overall,
        reasons,
        cards,
        _slices(judged, cases),
        *_changes(judged, cases),
        list(dict.fromkeys(one.case_id for one in flaky)),
        flaky,
    )


def _measure(
    metric: Metric,
    rubric: Rubric,
    cases: Sequence[Case],
    grid: Grid,
    baseline: dict[str, Grid] | None,
    clusters: NDArray[np.str_],
    alpha: float,
) -> _Judged:
    means = _case_means(metric, grid)
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
        return _Judged(metric, MetricCard(**known), means)
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
        else _case_means(metric, baseline[metric.name], complete=False)
    )
    both = kept if other is None else kept & ~np.isnan(other)
    if other is None or not both.any():
        return _Judged(metric, MetricCard(**known), means)
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
    return _Judged(metric, MetricCard(**known), means, other, estimate(room, _room_bounds(metric), alpha=alpha))


_COUNTED = {"scored": SCORED, "skipped": SKIPPED, "unscored": UNSCORED, "errors": ERROR, "missing": MISSING}


def _case_means(metric: Metric, grid: Grid, *, complete: bool = True) -> Floats:
    """Each case's mean over its trials.

    ``complete``: a missing trial counts as the worst value, where there is one. Not so for the baseline's, where that
    would flatter the candidate.
    """
    values = grid.values
    if complete and metric.worst is not None:
        values = np.where(grid.status == MISSING, metric.worst, values)
    present = ~np.isnan(values)
    counts = present.sum(axis=1)
    sums = np.where(present, values, 0.0).sum(axis=1)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


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


# --- from figures to a verdict --------------------------------------------------------------------------------


def _judge(one: _Judged, grid: Grid, cases: Sequence[Case], worse: bool) -> tuple[Verdict | None, str]:
    metric, card = one.metric, one.card
    asked = metric.minimum is not None or metric.maximum is not None or metric.margin is not None or metric.never
    if card.mean is None:
        if not asked:
            return None, "no case could be scored"
        return "inconclusive", f"no case could be scored ({card.skipped} skipped, {card.unscored} unscored)"
    failed: list[str] = []
    open_: list[str] = []
    good: list[str] = []
    broken = _broken_rule(metric, grid, cases) if metric.never else ""
    if broken:
        return "fail", broken
    if metric.never:
        good.append("never broken")
    for verdict, text in (_against_bounds(metric, card), _against_baseline(one, worse)):
        {"fail": failed, "inconclusive": open_, "pass": good}.get(verdict or "", []).append(text)
    if card.missing and metric.worst is None:
        open_.append(
            f"{card.missing} trials did not run, or met a failing provider: what they would have come to is unknown"
        )
    elif card.missing and failed:
        open_.append(
            f"{card.missing} trials did not run, or met a failing provider; counted as failures: {'; '.join(failed)}"
        )
        failed = []
    if card.unscored > UNSCORED_SHARE * (card.unscored + card.scored):
        open_.append(f"the judge left {card.unscored} of {card.unscored + card.scored} answers unscored")
    if failed:
        return "fail", "; ".join(failed)
    if open_:
        return "inconclusive", "; ".join(open_)
    return ("pass" if good else None), "; ".join(good)


def _broken_rule(metric: Metric, grid: Grid, cases: Sequence[Case]) -> str:
    perfect = 1.0 if metric.direction == "higher" else 0.0
    rows = np.flatnonzero(((grid.values != perfect) & ~np.isnan(grid.values)).any(axis=1))
    if not len(rows):
        return ""
    names = ", ".join(cases[row].id for row in rows[:5])
    return f"must never be broken, and was in {len(rows)} of {len(cases)} cases: {names}{'…' if len(rows) > 5 else ''}"


def _against_bounds(metric: Metric, card: MetricCard) -> tuple[Verdict | None, str]:
    assert card.mean is not None
    assert card.interval is not None
    low, high = card.interval.low, card.interval.high
    shown = show(card.mean, metric.unit)
    around = f"{show(low, metric.unit)}..{show(high, metric.unit)}"
    verdict: Verdict | None = None
    text = ""
    for bound, sign, word in ((metric.minimum, 1, "≥"), (metric.maximum, -1, "≤")):
        if bound is None or verdict == "fail":
            continue
        limit = show(bound, metric.unit)
        reached = sign * (card.mean - bound) >= 0
        if not metric.strict:
            verdict, text = (
                ("pass", f"{shown} {word} {limit}") if reached else ("fail", _missed(shown, sign, limit, around))
            )
        elif sign * ((low if sign > 0 else high) - bound) >= 0:
            verdict, text = "pass", f"{around} {word} {limit}"
        elif sign * ((high if sign > 0 else low) - bound) < 0:
            verdict, text = "fail", _missed(shown, sign, limit, around)
        else:
            verdict, text = "inconclusive", f"{shown}, but {around} does not settle {word} {limit} (strict)"
    return verdict, text


def _missed(shown: str, sign: int, limit: str, around: str) -> str:
    return f"{shown} {'<' if sign > 0 else '>'} {limit} ({around})"


def _against_baseline(one: _Judged, worse: bool) -> tuple[Verdict | None, str]:
    metric, card = one.metric, one.card
    if card.p_worse is None:
        return None, ""
    assert card.difference is not None
    assert card.difference_interval is not None
    assert card.baseline_mean is not None
    moved = (
        f"{show(card.baseline_mean, metric.unit)} → {show(card.baseline_mean + card.difference, metric.unit)} "
        f"({signed(card.difference_interval.low, metric.unit)}..{signed(card.difference_interval.high, metric.unit)})"
    )
    margin = metric.margin or 0.0
    allowed = f"{margin:.0%}" if not metric.bounded else show(margin, metric.unit)
    if worse:
        than = f"by more than the margin {allowed}" if margin else "than the baseline"
        return "fail", f"surely worse {than}: {moved}, p = {card.p_worse:.2g}"
    if metric.margin is None:
        return "pass", f"not surely worse than the baseline: {moved}"
    assert one.room is not None
    if one.room.low >= 0:
        return "pass", f"within the margin {allowed} of the baseline: {moved}"
    return "inconclusive", f"{moved} does not settle the margin {allowed}; {_what_helps(one)}"


def _what_helps(one: _Judged) -> str:
    """Whether more trials or more cases would settle it: trials cannot buy away the cases' own variance."""
    assert one.room is not None
    if one.room.mean <= 0:
        return "as it stands it is worse: more cases would likely show that"
    needed = _needed(one)
    if needed.get("more_trials"):
        return f"run about {needed['more_trials']} more trials a case (--buy-trials)"
    return f"add about {needed['more_cases']} cases" if needed.get("more_cases") else "add cases"


def _needed(one: _Judged) -> dict[str, int | None]:
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


def _gap(one: _Judged) -> tuple[float, float]:
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


# --- where it hurts -------------------------------------------------------------------------------------------


def _slices(judged: Sequence[_Judged], cases: Sequence[Case]) -> list[Slice]:
    """The worst kinds of case, by loss against the baseline or, without one, against the whole set."""
    members: dict[tuple[Any, str], list[int]] = {}
    for row, case in enumerate(cases):
        for tag in case.tags:
            members.setdefault(("tag", tag), []).append(row)
        if case.cluster:
            members.setdefault(("cluster", case.cluster), []).append(row)
    found: list[tuple[float, Slice]] = []
    for one in judged:
        if not one.metric.bounded or one.card.mean is None or one.metric.name == "error_rate":
            continue
        sign = 1.0 if one.metric.direction == "higher" else -1.0
        for (kind, name), rows in members.items():
            index = np.array(rows)
            index = index[~np.isnan(one.means[index])]
            if len(index) < SMALL_SLICE:
                continue
            mean, before = float(one.means[index].mean()), None
            if one.baseline is not None and not np.isnan(one.baseline[index]).all():
                before = float(np.nanmean(one.baseline[index]))
            loss = sign * ((before if before is not None else one.card.mean) - mean)
            shrunk = loss * len(index) / (len(index) + SHRINK)
            if shrunk > 0:
                part = Slice(
                    kind=kind, name=name, metric=one.metric.name, cases=len(index), mean=mean, baseline_mean=before
                )
                found.append((shrunk, part))
    found.sort(key=lambda item: (-item[0], item[1].kind, item[1].name))
    return [part for _, part in found[:SHOWN]]


def _changes(judged: Sequence[_Judged], cases: Sequence[Case]) -> tuple[list[Change], list[Change]]:
    """Cases newly broken and newly fixed: their mean on a blocking metric moved by half the range or more."""
    broken: list[Change] = []
    fixed: list[Change] = []
    for one in judged:
        if one.baseline is None or not (one.metric.bounded and one.metric.blocking):
            continue
        sign = 1.0 if one.metric.direction == "higher" else -1.0
        moved = sign * (one.means - one.baseline)
        for row in np.flatnonzero(np.abs(np.nan_to_num(moved)) >= 0.5).tolist():
            change = Change(
                case_id=cases[row].id,
                metric=one.metric.name,
                before=float(one.baseline[row]),
                after=float(one.means[row]),
            )
            (fixed if moved[row] > 0 else broken).append(change)
    return broken, fixed


def _flaky(judged: Sequence[_Judged], cases: Sequence[Case], grids: dict[str, Grid]) -> list[Flaky]:
    """Cases that one trial gets right and another wrong, on a blocking metric; the most variable first."""
    found: list[Flaky] = []
    for one in judged:
        values = grids[one.metric.name].values
        if not (one.metric.bounded and one.metric.blocking and values.shape[1] > 1):
            continue
        some = np.flatnonzero(~np.isnan(values).all(axis=1))
        lowest, highest = np.nanmin(values[some], axis=1), np.nanmax(values[some], axis=1)
        for place in np.flatnonzero(highest - lowest >= 0.5).tolist():
            row = values[some[place]]
            row = row[~np.isnan(row)]
            found.append(
                Flaky(
                    case_id=cases[some[place]].id,
                    metric=one.metric.name,
                    lowest=float(lowest[place]),
                    highest=float(highest[place]),
                    sd=float(row.std(ddof=1)),
                    trials=len(row),
                )
            )
    return sorted(found, key=lambda one: -one.sd)
