"""Two evaluations against each other: paired, case by case, where both saw the same cases. Pure.

Where only their scorecards are there, two means are compared, which shows less: what makes a case hard for both
versions does not cancel.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import msgspec
import numpy as np

from lockgate.errors import InputError
from lockgate.evals.figures import show, signed
from lockgate.evals.gate import Decision, decide
from lockgate.evals.model import Interval, Metric, MetricCard, Rubric, Scorecard, Verdict
from lockgate.evals.operations import Ran, costs_by_tag, mean_cost, quantiles
from lockgate.evals.sequential import ALPHA, SHOWN
from lockgate.evals.statistics import Floats, holm
from lockgate.evals.tables import CaseTable, rows_of

_Z = NormalDist().inv_cdf(1 - SHOWN)


class Compared(NamedTuple):
    """What both saw: the same cases in the same order. ``after`` names them."""

    before: CaseTable
    after: CaseTable
    left_out: int  # cases that only one of them saw


def paired(before: CaseTable, after: CaseTable) -> Compared:
    """The cases that both saw, by what the agent was given. Raises :class:`InputError` when there are none."""
    if list(before.keys) == list(after.keys):
        return Compared(before, after, 0)
    place = {key: row for row, key in enumerate(before.keys)}
    rows = [row for row, key in enumerate(after.keys) if key in place]
    if not rows:
        raise InputError("the two runs have no case in common", remedy="compare runs of the same golden set")
    left = len(before.keys) + len(after.keys) - 2 * len(rows)
    return Compared(rows_of(before, [place[after.keys[row]] for row in rows]), rows_of(after, rows), left)


def compare_tables(before: Scorecard, after: Scorecard, tables: Compared, **card: Any) -> Scorecard:
    """The second evaluation held against the first, by the second's bounds and margins. ``card``: id and time."""
    same = [one for one in after.metrics if _same(one.name, before, after)]
    names = [one.name for one in same if one.name in tables.after.grids and one.name in tables.before.grids]
    rubric = Rubric(metrics=tuple(_metric(one) for one in same if one.name in names))
    if not names:
        raise InputError("the two runs share no metric", remedy="compare runs that were scored by the same rubric")
    found = decide(rubric, tables.after.cases, tables.after.grids, tables.before.grids)
    warnings = []
    if tables.left_out:
        warnings.append(f"{tables.left_out} cases are in one of the runs only, and left out")
    others = sorted({one.name for one in (*before.metrics, *after.metrics)} - set(names))
    if others:
        warnings.append(f"not scored in the same way in both runs, and left out: {', '.join(others)}")
    return _card(before, after, found, tables, warnings, card)


def _card(
    before: Scorecard, after: Scorecard, found: Decision, tables: Compared, warnings: list[str], given: dict[str, Any]
) -> Scorecard:
    mine = Ran(tables.after.costs, tables.after.seconds)
    theirs = Ran(tables.before.costs, tables.before.seconds)
    return msgspec.structs.replace(
        after,
        **given,
        kind="compare",
        cases=len(tables.after.cases),
        dataset_cases=len(tables.after.cases),
        trials=tables.after.costs.shape[1],
        baseline_label=before.label,
        baseline_effective=before.effective_digest,
        verdict=found.verdict,
        reasons=found.reasons,
        metrics=found.metrics,
        slices=found.slices,
        broken=found.broken,
        fixed=found.fixed,
        flaky=found.flaky,
        flaky_cases=found.flaky_cases,
        level=ALPHA,
        looks=[],
        settled_early=False,
        bought_trials=0,
        latency=quantiles(mine.seconds),
        baseline_latency=quantiles(theirs.seconds),
        cost_nano=_nano(mine.costs),
        run_usd=mean_cost(mine),
        baseline_run_usd=mean_cost(theirs),
        costs=costs_by_tag(tables.after.cases, mine, theirs),
        spent_nano=0,
        seconds=0.0,
        cached_trials=tables.after.costs.size,
        warnings=warnings,
        self_check=None,
        attestation=None,
    )


def compare_cards(before: Scorecard, after: Scorecard, **card: Any) -> Scorecard:
    """The same from two scorecards alone: differences of two means that are taken as independent."""
    metrics = []
    for mine in after.metrics:
        theirs = before.metric(mine.name)
        comparable = theirs is not None and _same(mine.name, before, after)
        metrics.append(_unpaired(mine, theirs) if theirs is not None and comparable else _alone(mine))
    tested = {one.name: one.p_worse for one in metrics if one.blocking and one.p_worse is not None}
    worse = holm(tested)
    metrics = [_verdict(one, one.name in worse) for one in metrics]
    deciding = [one for one in metrics if one.blocking]
    verdicts = {one.verdict for one in deciding}
    overall: Verdict = "fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "inconclusive"
    return msgspec.structs.replace(
        after,
        **card,
        kind="compare",
        baseline_label=before.label,
        baseline_effective=before.effective_digest,
        baseline_latency=before.latency,
        baseline_run_usd=before.mean_cost_usd,
        verdict=overall,
        reasons=[f"{one.name}: {one.reason}" for one in deciding if one.verdict == overall],
        metrics=metrics,
        slices=[],
        broken=[],
        fixed=[],
        level=ALPHA,
        looks=[],
        spent_nano=0,
        seconds=0.0,
        self_check=None,
        warnings=[
            "not paired: these scorecards' cases are not stored here, so that two means were compared; a paired "
            "comparison, of two runs where they are stored, shows smaller differences, and which cases changed"
        ],
    )


def _unpaired(mine: MetricCard, theirs: MetricCard) -> MetricCard:
    if mine.mean is None or theirs.mean is None or mine.interval is None or theirs.interval is None:
        return _alone(mine)
    moved = mine.mean - theirs.mean
    down = math.hypot(mine.mean - mine.interval.low, theirs.interval.high - theirs.mean)
    up = math.hypot(mine.interval.high - mine.mean, theirs.mean - theirs.interval.low)
    bounded = mine.unit in ("score", "rate")
    margin = (mine.margin or 0.0) * (1.0 if bounded else abs(theirs.mean))
    sign = 1.0 if mine.direction == "higher" else -1.0
    room, reach = sign * moved + margin, up if sign > 0 else down
    p = NormalDist().cdf(room / (reach / _Z)) if reach > 0 else float(room >= 0)
    return msgspec.structs.replace(
        mine,
        baseline_mean=theirs.mean,
        difference=moved,
        difference_interval=Interval(moved - down, moved + up),
        p_worse=p if bounded or mine.margin is not None else None,
        detectable=None,
        more_cases=None,
        more_trials=None,
    )


def _alone(mine: MetricCard) -> MetricCard:
    nothing = {"baseline_mean": None, "difference": None, "difference_interval": None, "p_worse": None}
    return msgspec.structs.replace(mine, **nothing)


def _verdict(one: MetricCard, worse: bool) -> MetricCard:
    if one.difference is None or one.difference_interval is None or one.baseline_mean is None:
        return msgspec.structs.replace(one, verdict="inconclusive" if one.blocking else None, reason="not comparable")
    if one.p_worse is None:
        return msgspec.structs.replace(one, verdict="pass" if one.blocking else None, reason="")
    low, high = one.difference_interval.low, one.difference_interval.high
    text = (
        f"{show(one.baseline_mean, one.unit)} → {show(one.baseline_mean + one.difference, one.unit)} "
        f"({signed(low, one.unit)}..{signed(high, one.unit)}), not paired"
    )
    margin = (one.margin or 0.0) * (1.0 if one.unit in ("score", "rate") else abs(one.baseline_mean))
    worst = low if one.direction == "higher" else -high
    if worse:
        return msgspec.structs.replace(one, verdict="fail", reason=f"surely worse: {text}")
    if one.margin is None or worst >= -margin:
        return msgspec.structs.replace(one, verdict="pass", reason=f"not surely worse: {text}")
    return msgspec.structs.replace(one, verdict="inconclusive", reason=f"not settled within the margin: {text}")


def _same(name: str, before: Scorecard, after: Scorecard) -> bool:
    return before.scorer_digests.get(name) == after.scorer_digests.get(name)


def _metric(card: MetricCard) -> Metric:
    fields = ("name", "scorer", "direction", "unit", "minimum", "maximum", "margin", "blocking", "strict", "aggregate")
    return Metric(**{field: getattr(card, field) for field in fields}, passes=card.passes)


def _nano(costs: Floats) -> int:
    return int(np.nansum(costs) * 1e9)
