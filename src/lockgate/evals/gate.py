"""The verdict: pass, fail or inconclusive, from scores alone. Pure.

A metric fails when its mean misses its threshold, or when it is surely worse than the baseline by more than the margin
(Holm over the metrics). It passes when its threshold holds and it is surely not worse by the margin. Without a margin,
scores and rates pass when they are not surely worse, and cost and time are held against their threshold alone. Failed
and missing trials count as the worst value. The whole gate fails when one blocking metric fails, and passes when all
pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from lockgate.evals.advice import needed, what_helps
from lockgate.evals.figures import show, signed
from lockgate.evals.findings import changes, flaky, slices
from lockgate.evals.grid import Grid
from lockgate.evals.measuring import ALPHA, Judged, measure
from lockgate.evals.model import Case, Change, Flaky, Metric, MetricCard, Rubric, Slice, Verdict
from lockgate.evals.statistics import holm

UNSCORED_SHARE = 0.1
"""A metric whose judge left more than this share without a usable answer cannot pass."""


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
        measure(metric, rubric, cases, candidate[metric.name], baseline, clusters, alpha) for metric in rubric.metrics
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
        more = needed(one) if verdict == "inconclusive" else {}
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
        slices(judged, cases),
        *changes(judged, cases),
        list(dict.fromkeys(one.case_id for one in varying)),
        varying,
    )


def _judge(one: Judged, grid: Grid, cases: Sequence[Case], worse: bool) -> tuple[Verdict | None, str]:
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


def _against_baseline(one: Judged, worse: bool) -> tuple[Verdict | None, str]:
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
    return "inconclusive", f"{moved} does not settle the margin {allowed}; {what_helps(one)}"
