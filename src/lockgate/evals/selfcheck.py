"""The gate audits itself: a version against itself must not be blocked, one made worse on purpose must be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import msgspec
import numpy as np

from lockgate.evals.gate import decide
from lockgate.evals.grid import Grid
from lockgate.evals.model import Case, Interval, Rubric, SelfCheck
from lockgate.evals.sequential import ALPHA
from lockgate.results import RunResult

GATES = 100
"""Gates of a version against itself: enough to see 5 % as 2 to 11 %."""
MOST_CASES = 300

Answers = Callable[[Case, int], RunResult]


class Mutation(NamedTuple):
    """A way to make answers worse that costs no model call: what a broken deployment would send."""

    name: str
    what: str
    change: Callable[[RunResult, RunResult], RunResult]  # this case's answer, and another case's


def false_blocks(
    rubric: Rubric, cases: Sequence[Case], grids: dict[str, Grid], *, gates: int = GATES, seed: int = 1
) -> SelfCheck:
    """How often the gate blocks a version held against itself, on its own trials (at least two a case).

    Each gate draws the golden set again by cluster, and deals each case's trials out to the two sides at random, so
    that nothing but chance tells the sides apart.
    """
    metrics = tuple(
        msgspec.structs.replace(metric, minimum=None, maximum=None, never=False)
        for metric in rubric.metrics
        if metric.blocking and (metric.bounded or metric.margin is not None)
    )
    same = msgspec.structs.replace(rubric, metrics=metrics)
    random = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        members.setdefault(f"c{case.cluster}" if case.cluster else f"i{case.id}", []).append(row)
    groups = list(members.values())
    blocked = unsettled = 0
    for _ in range(gates):
        rows: list[int] = []
        drawn: list[Case] = []
        for place, group in enumerate(random.choice(len(groups), len(groups)).tolist()):
            for row in groups[group]:
                if len(rows) < MOST_CASES:
                    rows.append(row)
                    drawn.append(Case(id=f"{place}-{row}", input=None, cluster=str(place), tags=cases[row].tags))
        order = random.random((len(rows), next(iter(grids.values())).values.shape[1])).argsort(axis=1)
        half = order.shape[1] // 2
        sides = [
            {name: _dealt(grid, rows, part) for name, grid in grids.items()}
            for part in (order[:, :half], order[:, half : 2 * half])
        ]
        verdict = decide(same, drawn, *sides, advise=False).verdict
        blocked += verdict == "fail"
        unsettled += verdict == "inconclusive"
    rate = blocked / gates
    return SelfCheck(
        gates=gates,
        false_blocks=blocked,
        false_block_rate=rate,
        false_block_interval=_wilson(blocked, gates),
        level=ALPHA,
        inconclusive=unsettled,
    )


def _dealt(grid: Grid, rows: list[int], part: Any) -> Grid:
    values, status = (np.take_along_axis(table[rows], part, axis=1) for table in (grid.values, grid.status))
    return Grid(values.astype(np.float64), status.astype(np.uint8))


def _wilson(count: int, of: int) -> Interval:
    z = NormalDist().inv_cdf(1 - ALPHA)
    share = count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def _cut(mine: RunResult, other: RunResult) -> RunResult:
    output = mine.output
    if isinstance(output, dict):
        output = dict(list(output.items())[: len(output) // 2])
    elif isinstance(output, str):
        output = output[: len(output) // 2]
    return msgspec.structs.replace(mine, output=output)


MUTATIONS = (
    Mutation("output cut", "the second half of every answer is missing", _cut),
    Mutation(
        "answers shuffled",
        "every case gets another case's answer",
        lambda mine, other: msgspec.structs.replace(other, cost_nano=mine.cost_nano, seconds=mine.seconds),
    ),
    Mutation(
        "no answer",
        "every run ends without an answer",
        lambda mine, other: msgspec.structs.replace(
            mine, status="failed", output=None, error_type="no_answer", error="made to fail by the self-check"
        ),
    ),
    Mutation(
        "tools not called",
        "no tool call is made",
        lambda mine, other: msgspec.structs.replace(mine, tools_used=[]),
    ),
)
