"""Where it hurts: the worst kinds of case, cases that changed, cases whose trials disagree. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lockgate.evals.grid import Grid
from lockgate.evals.measuring import Judged
from lockgate.evals.model import Case, Change, Flaky, Slice
from lockgate.evals.statistics import Floats

SMALL_SLICE = 3
"""A slice of fewer cases is not shown; larger ones are pulled towards the whole by :data:`SHRINK` cases."""
SHRINK = 4
SHOWN = 20
EVERY_KIND = "attack_resisted"
"""The scorer whose kinds of case are all said, also those that nothing is wrong with: none may be overlooked."""


def _of_those_that_ran(one: Judged, grids: Mapping[str, Grid]) -> Floats:
    """The cases' means; NaN where no trial ran: that counts as the worst in a verdict, and is no finding."""
    found: Floats = np.where(np.isnan(grids[one.metric.name].values).all(axis=1), np.nan, one.means)
    return found


def slices(judged: Sequence[Judged], cases: Sequence[Case], grids: Mapping[str, Grid]) -> list[Slice]:
    """The worst kinds of case, by loss against the baseline or, without one, against the whole set."""
    numbers: dict[tuple[Literal["tag", "cluster"], str], int] = {}
    rows, kinds = array("q"), array("q")
    for row, case in enumerate(cases):
        for tag in case.tags:
            rows.append(row)
            kinds.append(numbers.setdefault(("tag", tag), len(numbers)))
        if case.cluster:
            rows.append(row)
            kinds.append(numbers.setdefault(("cluster", case.cluster), len(numbers)))
    names, member, kind_of = list(numbers), np.array(rows), np.array(kinds)
    found: list[tuple[float, Slice]] = []
    for one in judged:
        if not one.metric.bounded or one.card.mean is None or one.metric.name == "error_rate" or not names:
            continue
        sign = 1.0 if one.metric.direction == "higher" else -1.0
        own = _of_those_that_ran(one, grids)[member]
        means, counts = _by_kind(own, kind_of, len(names))
        before = np.full(len(names), np.nan)
        if one.baseline is not None:
            kept = ~np.isnan(own)
            before, _ = _by_kind(one.baseline[member[kept]], kind_of[kept], len(names))
        loss = sign * (np.where(np.isnan(before), one.card.mean, before) - means)
        shrunk = np.where(counts >= SMALL_SLICE, loss * counts / (counts + SHRINK), 0.0)
        worst = np.argsort(-shrunk, kind="stable")[: 10 * SHOWN]
        shown = worst[shrunk[worst] > 0].tolist()
        if one.metric.scorer == EVERY_KIND:
            of_tags = [number for number, (kind, _) in enumerate(names) if kind == "tag" and counts[number]]
            shown = list(dict.fromkeys([*shown, *of_tags]))
        for number in shown:
            kind, name = names[number]
            part = Slice(
                kind=kind,
                name=name,
                metric=one.metric.name,
                cases=int(counts[number]),
                mean=float(means[number]),
                baseline_mean=None if np.isnan(before[number]) else float(before[number]),
            )
            found.append((float(shrunk[number]), part))
    found.sort(key=lambda item: (-item[0], item[1].kind, item[1].name))
    whole = {one.metric.name for one in judged if one.metric.scorer == EVERY_KIND}
    return [part for place, (_, part) in enumerate(found) if place < SHOWN or part.metric in whole]


def _by_kind(values: Floats, kinds: NDArray[np.int64], count: int) -> tuple[Floats, NDArray[np.int64]]:
    """Mean and number of the values of each kind that are none of NaN."""
    there = ~np.isnan(values)
    counts = np.bincount(kinds[there], minlength=count)
    sums = np.bincount(kinds[there], weights=values[there], minlength=count)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts


def changes(
    judged: Sequence[Judged], cases: Sequence[Case], grids: Mapping[str, Grid]
) -> tuple[list[Change], list[Change]]:
    """Cases newly broken and newly fixed: their mean on a blocking metric moved by half the range or more."""
    broken: list[Change] = []
    fixed: list[Change] = []
    for one in judged:
        if one.baseline is None or not (one.metric.bounded and one.metric.blocking):
            continue
        sign = 1.0 if one.metric.direction == "higher" else -1.0
        moved = sign * (_of_those_that_ran(one, grids) - one.baseline)
        for row in np.flatnonzero(np.abs(np.nan_to_num(moved)) >= 0.5).tolist():
            change = Change(
                case_id=cases[row].id,
                metric=one.metric.name,
                before=float(one.baseline[row]),
                after=float(one.means[row]),
            )
            (fixed if moved[row] > 0 else broken).append(change)
    return broken, fixed


def flaky(judged: Sequence[Judged], cases: Sequence[Case], grids: Mapping[str, Grid]) -> list[Flaky]:
    """Cases that one trial gets right and another wrong, on a blocking metric; the most variable first."""
    found: list[Flaky] = []
    for one in judged:
        values = grids[one.metric.name].values
        if not (one.metric.bounded and one.metric.blocking and values.shape[1] > 1):
            continue
        some = np.flatnonzero(~np.isnan(values).all(axis=1))
        lowest, highest = np.nanmin(values[some], axis=1), np.nanmax(values[some], axis=1)
        varying = np.flatnonzero(highest - lowest >= 0.5)
        apart = np.nanstd(values[some[varying]], axis=1, ddof=1).tolist()
        trials = np.count_nonzero(~np.isnan(values[some[varying]]), axis=1).tolist()
        for number, place in enumerate(varying.tolist()):
            found.append(
                Flaky(
                    case_id=cases[some[place]].id,
                    metric=one.metric.name,
                    lowest=float(lowest[place]),
                    highest=float(highest[place]),
                    sd=apart[number],
                    trials=trials[number],
                )
            )
    return sorted(found, key=lambda one: -one.sd)
