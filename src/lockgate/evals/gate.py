"""The verdict: pass, fail or inconclusive, from scores alone. Pure.

A metric fails when its mean misses its threshold, or when it is surely worse than the baseline by more than the margin
(Holm over the metrics). It passes when its threshold holds and it is surely not worse by the margin. Without a margin,
scores and rates pass when they are not surely worse, and cost and time are held against their threshold alone. Failed
and missing trials count as the worst value. The whole gate fails when one blocking metric fails, and passes when all
pass.

Before all of the rubric's own trials have run, what depends on the whole set (a mean against a threshold) is settled
only when the rest can hardly change it, and a rule that must never be broken is settled only by breaking it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from lockgate.evals.advice import in_words, needed
from lockgate.evals.figures import apart, show, signed
from lockgate.evals.findings import changes, flaky, slices
from lockgate.evals.grid import Grid
from lockgate.evals.measuring import Judged, Labels, measure, room_bounds, sorted_out
from lockgate.evals.model import Case, Change, Flaky, Metric, MetricCard, Rubric, Slice, Verdict
from lockgate.evals.sequential import ALPHA, Level
from lockgate.evals.statistics import estimate, holm

UNSCORED_SHARE = 0.1
"""A metric whose judge left more than this share without a usable answer cannot pass."""


ONCE = Level()


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


def decide(
    rubric: Rubric,
    cases: Sequence[Case],
    candidate: Mapping[str, Grid],
    baseline: Mapping[str, Grid] | None,
    *,
    at: Level = ONCE,
    labels: Mapping[str, Labels] | None = None,
    advise: bool = True,
) -> Decision:
    """The verdict on ``candidate``, alone or against ``baseline`` (metric name → grid, a row for each of ``cases``).

    ``at``: what this look may err with, where it is one of several; ``labels``: people's scores of answers that the
    judge has scored too, by metric; ``advise``: whether to say what would settle an open metric, which takes longer
    than the verdict.
    """
    known = sorted_out(cases, rubric.slices)
    judged = [
        measure(metric, known, candidate[metric.name], baseline, at, (labels or {}).get(metric.name))
        for metric in rubric.metrics
    ]
    tested = {one.card.name: one.card.p_worse for one in judged if one.metric.blocking and one.card.p_worse is not None}
    surely_worse = holm(tested, at.family)
    advisory_worse = {
        one.card.name
        for one in judged
        if not one.metric.blocking and one.card.p_worse is not None and one.card.p_worse <= at.bound
    }
    cards = []
    for one in judged:
        verdict, reason = _judge(
            one, candidate[one.metric.name], cases, one.card.name in surely_worse | advisory_worse, at
        )
        more: dict[str, int | None] = {}
        if verdict == "inconclusive" and advise:
            more = needed(one)
            reason = "; ".join(filter(None, (reason, in_words(one, more))))
        cards.append(msgspec.structs.replace(one.card, verdict=verdict, reason=reason, **more))
    varying = flaky(judged, cases, candidate)
    blocking = [card for card in cards if card.blocking]
    verdicts = {card.verdict for card in blocking}
    overall: Verdict = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    reasons = [f"{card.name}: {card.reason}" for card in blocking if card.verdict == overall and card.reason]
    return Decision(
        overall,
        reasons,
        cards,
        slices(judged, cases, candidate),
        *changes(judged, cases, candidate),
        list(dict.fromkeys(one.case_id for one in varying)),
        varying,
    )


def _judge(one: Judged, grid: Grid, cases: Sequence[Case], worse: bool, at: Level) -> tuple[Verdict | None, str]:
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
    if metric.never and at.seen < 1:
        open_.append("not broken so far")
    elif metric.never:
        good.append("never broken")
    for verdict, text in (_against_bounds(one, at), _against_baseline(one, worse, at)):
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


def _against_bounds(one: Judged, at: Level) -> tuple[Verdict | None, str]:
    metric, mean = one.metric, one.mean
    assert mean is not None
    assert one.fails is not None
    verdict: Verdict | None = None
    text = ""
    for bound, sign, word in ((metric.minimum, 1, "≥"), (metric.maximum, -1, "≤")):
        if bound is None or verdict == "fail":
            continue
        shown, limit = apart(mean.mean, bound, metric.unit)
        low, high = (mean.low, mean.high) if metric.strict else _of_the_whole(one, at)
        worst = low if sign > 0 else high
        best = (one.fails.high if sign > 0 else one.fails.low) if metric.strict else (high if sign > 0 else low)
        whole = "" if at.seen >= 1 or metric.strict else f" (the whole set: {_span(low, high, metric)})"
        if sign * (worst - bound) >= 0:
            verdict = "pass"
            text = f"surely {word} {limit}: {shown}, at worst {show(worst, metric.unit)}" if metric.strict else ""
            text = text or f"{shown} {word} {limit}{whole}"
        elif sign * (best - bound) < 0:
            around = whole or f" ({_span(mean.low, mean.high, metric)})"
            verdict, text = "fail", f"{shown} {'<' if sign > 0 else '>'} {limit}{around}"
        elif metric.strict:
            verdict = "inconclusive"
            text = f"{shown}, but {_span(low, high, metric)} does not settle {word} {limit} (strict)"
        else:
            verdict, text = "inconclusive", f"{shown} so far; the whole set may be on either side of {word} {limit}"
    return verdict, text


def _span(low: float, high: float, metric: Metric) -> str:
    return f"{show(low, metric.unit)}..{show(high, metric.unit)}"


def _of_the_whole(one: Judged, at: Level) -> tuple[float, float]:
    """Where the mean over all of the rubric's own trials surely is: what was seen, and what the rest can make of it.

    Of the variance of a mean over a share f of what is drawn without replacement, 1 − f is left (Cochran 1977).
    Corrected by labels, the whole doubt stays: labels are no part of the set.
    """
    assert one.mean is not None
    if at.seen >= 1:
        return one.mean.mean, one.mean.mean
    if one.card.labels or one.units is None:
        assert one.fails is not None
        return one.fails.low, one.fails.high
    found = estimate(one.units, (0, 1) if one.metric.bounded else None, alpha=at.claim)
    left = math.sqrt(1 - at.seen)
    return found.mean - (found.mean - found.low) * left, found.mean + (found.high - found.mean) * left


def _against_baseline(one: Judged, worse: bool, at: Level) -> tuple[Verdict | None, str]:
    metric, card = one.metric, one.card
    if card.p_worse is None:
        return None, ""
    assert card.difference is not None
    assert card.baseline_mean is not None
    assert one.room is not None
    moved = f"{show(card.baseline_mean, metric.unit)} → {show(card.baseline_mean + card.difference, metric.unit)}"
    margin = metric.margin or 0.0
    allowed = f"{margin:.0%}" if not metric.bounded else show(margin, metric.unit)
    if worse:
        than = f"by more than the margin {allowed}" if margin else "than the baseline"
        return "fail", f"surely worse {than}: {moved}, p = {card.p_worse:.2g}"
    if metric.margin is None:
        if at.seen < 1 and not _stays_good(one, at):
            return "inconclusive", f"not surely worse than the baseline so far: {moved}"
        return "pass", f"not surely worse than the baseline: {moved}"
    if metric.bounded:
        moved += (
            f", at worst {signed((one.room.low - margin) * (1 if metric.direction == 'higher' else -1), metric.unit)}"
        )
    if one.room.low >= 0:
        return "pass", f"surely within the margin {allowed} of the baseline: {moved}"
    return "inconclusive", f"not settled within the margin {allowed}: {moved}"


def _stays_good(one: Judged, at: Level) -> bool:
    """Whether the whole set will hardly show the candidate surely worse: at most once in twenty, where the last look
    asks for half of that."""
    assert one.room_units is not None
    likely, asked = (estimate(one.room_units, room_bounds(one.metric), alpha=level) for level in (ALPHA, ALPHA / 2))
    lowest = likely.mean - (likely.mean - likely.low) * math.sqrt(1 - at.seen)
    return lowest >= (asked.mean - asked.high) * math.sqrt(at.seen)
