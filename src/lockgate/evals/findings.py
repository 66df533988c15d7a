"""Where it hurts: the worst kinds of case, cases that changed, cases whose trials disagree. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lockgate.evals.grid import Grid
from lockgate.evals.measuring import Judged
from lockgate.evals.model import Case, Change, Flaky, Slice

SMALL_SLICE = 3
"""A slice of fewer cases is not shown; larger ones are pulled towards the whole by :data:`SHRINK` cases."""
SHRINK = 4
SHOWN = 20
EVERY_KIND = "attack_resisted"
"""The scorer whose kinds of case are all said, also those that nothing is wrong with: none may be overlooked."""


def slices(judged: Sequence[Judged], cases: Sequence[Case]) -> list[Slice]:
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
            every = one.metric.scorer == EVERY_KIND and kind == "tag"
            if len(index) < (1 if every else SMALL_SLICE):
                continue
            mean, before = float(one.means[index].mean()), None
            if one.baseline is not None and not np.isnan(one.baseline[index]).all():
                before = float(np.nanmean(one.baseline[index]))
            loss = sign * ((before if before is not None else one.card.mean) - mean)
            shrunk = loss * len(index) / (len(index) + SHRINK)
            if shrunk > 0 or every:
                part = Slice(
                    kind=kind, name=name, metric=one.metric.name, cases=len(index), mean=mean, baseline_mean=before
                )
                found.append((shrunk, part))
    found.sort(key=lambda item: (-item[0], item[1].kind, item[1].name))
    whole = {one.metric.name for one in judged if one.metric.scorer == EVERY_KIND}
    return [part for place, (_, part) in enumerate(found) if place < SHOWN or part.metric in whole]


def changes(judged: Sequence[Judged], cases: Sequence[Case]) -> tuple[list[Change], list[Change]]:
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
