"""Runs trials look by look, and stops as soon as the verdict is settled.

What decides (and numpy with it) is imported where it is used: by then, trials have run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lockgate.errors import InputError
from lockgate.evals.grid import Grid, attempts
from lockgate.evals.model import Case, Look, MetricCard, Rubric, Subject
from lockgate.evals.running.outcome import Outcome
from lockgate.evals.sequential import Stage, design, in_order

if TYPE_CHECKING:
    from lockgate.evals.gate import Decision
    from lockgate.evals.measuring import Labels

Run = Callable[[Sequence[int], int], Awaitable[Outcome]]
"""Runs the cases of these rows so many times each."""


class Seen(NamedTuple):
    """What the looks came to. ``rows`` are the cases that were run, ``candidate`` and ``baseline`` their trials."""

    decision: Decision
    candidate: Outcome
    baseline: Outcome | None
    rows: Sequence[int]
    stage: Stage
    looks: list[Look]


def within_trials(rubric: Rubric, cases: int, bought: int | None) -> int | None:
    """Up to how many trials a case may be bought under ``evals.max_trials``, which counts those of all cases.

    Raises :class:`InputError` where the evaluation's own trials are more than it allows.
    """
    most = rubric.max_trials
    if most is None:
        return bought
    if cases * rubric.trials > most:
        raise InputError(
            f"evals.max_trials is {most}, and {cases} cases x {rubric.trials} trials are {cases * rubric.trials}",
            remedy="raise it, lower evals.trials, or name a smaller golden set",
        )
    return None if bought is None else min(bought, most // cases) if cases else bought


def planned(rubric: Rubric, cases: Sequence[Case], most: int | None, *, early: bool) -> list[Stage]:
    """The looks, fixed before the first trial."""
    fewest = max((attempts(metric) for metric in rubric.metrics), default=1)
    if fewest > rubric.trials:
        named = next(metric for metric in rubric.metrics if attempts(metric) == fewest)
        raise InputError(
            f"{named.name}: {named.aggregate} needs {fewest} trials a case, and there are {rubric.trials}",
            remedy=f"--trials {fewest}, or evals.trials in the agent file",
        )
    clusters = len({_cluster(case) for case in cases})
    return design(clusters, rubric.trials, max(rubric.trials, most or 0), fewest=fewest, early=early)


async def until_settled(
    rubric: Rubric,
    cases: Sequence[Case],
    stages: Sequence[Stage],
    run: Run,
    run_baseline: Run | None,
    *,
    labels: Mapping[str, Labels] | None = None,
    check: Callable[[Outcome], None] = lambda outcome: None,
) -> Seen:
    """Look after look, until one settles the verdict. ``check`` raises when there is nothing to look at.

    A part that ``max_usd`` cuts short is no look: the last whole one stands. The first is taken as it is, and what did
    not run counts against it.
    """
    places = in_order([_cluster(case) for case in cases])
    clusters = max(places, default=-1) + 1
    seen: Seen | None = None
    looks: list[Look] = []
    ran = 0
    for stage in stages:
        count = max(1, round(stage.share * clusters))
        rows: Sequence[int] = range(len(cases))
        if count < clusters:
            rows = [row for row, place in enumerate(places) if place < count]
        outcome = await run(rows, stage.trials)
        if looks and outcome.stopped:
            break
        check(outcome)
        from lockgate.evals.gate import decide

        other = None if run_baseline is None else await run_baseline(rows, stage.trials)
        if looks and other is not None and other.stopped:
            break
        some = cases if len(rows) == len(cases) else [cases[row] for row in rows]
        mine, theirs = part(outcome, rows, stage.trials), other and part(other, rows, stage.trials)
        stopped = outcome.stopped or (other is not None and other.stopped)
        before = theirs.grids if theirs else None
        decision = decide(
            rubric, some, mine.grids, before, at=stage.level, labels=labels, advise=stopped or not stage.early
        )
        calls = outcome.ran + (other.ran if other else 0)
        looks.append(
            Look(
                what=_named(stage, len(rows), len(cases)),
                trials=len(rows) * stage.trials,
                calls=calls - ran,
                level=stage.level.bound,
                verdict=decision.verdict,
            )
        )
        ran = calls
        seen = Seen(decision, mine, theirs, rows, stage, looks)
        if stopped or decision.verdict != "inconclusive":
            break
        if not stage.early and not _trials_help(decision.metrics, stage.trials, stages[-1].trials):
            break
    assert seen is not None
    return seen


def part(outcome: Outcome, rows: Sequence[int], trials: int) -> Outcome:
    """The same trials, of these rows alone, and only the first so many."""
    if len(rows) == len(outcome.costs) and outcome.costs.shape[1] == trials:
        return outcome
    import numpy as np

    index = np.fromiter(rows, dtype=np.int64, count=len(rows))
    return msgspec.structs.replace(
        outcome,
        grids={
            name: Grid(grid.values[index, :trials], grid.status[index, :trials]) for name, grid in outcome.grids.items()
        },
        costs=outcome.costs[index, :trials],
        seconds=outcome.seconds[index, :trials],
    )


@asynccontextmanager
async def kept_open(
    open_subject: Callable[[], AbstractAsyncContextManager[Subject]],
) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[Subject]]]:
    """The same subject for every look: made ready the first time that something is to run, and put away at the end."""
    async with AsyncExitStack() as stack:
        ready: list[Subject] = []

        @asynccontextmanager
        async def once() -> AsyncIterator[Subject]:
            if not ready:
                ready.append(await stack.enter_async_context(open_subject()))
            yield ready[0]

        yield once


def _cluster(case: Case) -> str:
    return f"c{case.cluster}" if case.cluster else f"i{case.id}"


def _named(stage: Stage, rows: int, cases: int) -> str:
    of = f"{rows} of {cases} cases" if rows < cases else f"{cases} cases"
    trials = f"{stage.trials} trial{'s' if stage.trials > 1 else ''}"
    return f"{of} × {trials}{' (bought)' if stage.bought else ''}"


def _trials_help(cards: Sequence[MetricCard], trials: int, most: int) -> bool:
    """Whether more trials can settle every open metric within what may be bought; after one trial nobody knows how
    much trials vary."""
    still_open = [card for card in cards if card.blocking and card.verdict == "inconclusive"]
    return trials == 1 or all(card.more_trials and trials + card.more_trials <= 2 * most for card in still_open)
