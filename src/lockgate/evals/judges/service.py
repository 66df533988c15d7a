"""Calibrates a judge: asks it what people were asked, and keeps what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lockgate.clock import Clock
from lockgate.errors import InputError, LockgateError, Unavailable
from lockgate.evals import peers
from lockgate.evals.judges import store
from lockgate.evals.judges.calibration import Calibration, Pair, calibrate, judge_digest
from lockgate.evals.judges.labels import Label, lengths, one_an_answer
from lockgate.evals.model import JudgeSettings, Metric
from lockgate.evals.rubric import make_scorer
from lockgate.evals.running.meter import METER, Meter, Spend, counted
from lockgate.evals.running.pace import Pace
from lockgate.evals.scorers.judge import Ask
from lockgate.evals.scorers.sample import Mark
from lockgate.money import show_usd, to_nano
from lockgate.storage.engine import Database

AT_ONCE = 8
"""Answers graded at a time."""
COULD_NOT = 0.5
"""From this share of answers on that the judge's provider failed on, nothing is said of the judge."""


class Judges:
    """Calibrations of one control database."""

    def __init__(self, control: Database, clock: Clock) -> None:
        self._control = control
        self._clock = clock

    async def calibrate(
        self,
        settings: JudgeSettings,
        metric: Metric,
        labels: Sequence[Label],
        ask: Ask,
        root: Path,
        *,
        max_usd: float | None = None,
    ) -> Calibration:
        """Ask the judge about every labelled answer, and store how far it agrees.

        Nothing is sent that could pass ``max_usd``. Raises :class:`~lockgate.errors.Unavailable`, and stores nothing,
        when that or a failing provider left too little graded; :class:`~lockgate.errors.InputError` when the labels
        lack what the metric needs.
        """
        labels = one_an_answer(labels)
        spend = Spend(limit=None if max_usd is None else to_nano(max_usd))
        pace = Pace(AT_ONCE)
        scorer = make_scorer(metric, root, ask=counted(ask, spend), judge=settings)
        turn = asyncio.Semaphore(AT_ONCE)
        failures: list[Exception] = []

        async def grade(label: Label) -> Mark:
            METER.set(Meter(spend, pace))
            async with turn:
                try:
                    mark = scorer(label.sample)
                    return mark if isinstance(mark, Mark) else await mark
                except (LockgateError, TimeoutError, peers.WorkerFailed) as failure:
                    failures.append(failure)
                    return Mark(None, str(failure), "unscored")  # counted

        async with peers.running([metric], root):
            marks = await asyncio.gather(*(grade(label) for label in labels))
        _check(marks, failures, spend)
        pairs = [
            Pair(item=label.item, human=label.human, judge=mark.value, length=length)
            for label, mark, length in zip(labels, marks, lengths(labels), strict=True)
        ]
        found = calibrate(pairs, settings, metric, now=self._clock())
        found = msgspec.structs.replace(found, spent_nano=spend.nano)
        store.save(self._control, found)
        return found

    def calibration(self, settings: JudgeSettings, metric: Metric) -> Calibration | None:
        """The newest calibration of exactly this judge on this metric."""
        return store.last(self._control, judge_digest(settings, metric))

    def list(self) -> list[Calibration]:
        """All calibrations, the newest first."""
        return store.listed(self._control)


def _check(marks: Sequence[Mark], failures: Sequence[Exception], spend: Spend) -> None:
    if spend.refused:
        raise Unavailable(
            f"could not calibrate: max_usd was reached after {sum(mark.value is not None for mark in marks)} of "
            f"{len(marks)} answers ({show_usd(spend.nano)} spent)",
            remedy="raise --max-usd",
        )
    if failures and len(failures) >= COULD_NOT * len(marks):
        raise Unavailable(
            f"could not calibrate: the judge failed on {len(failures)} of {len(marks)} answers: {failures[-1]}",
            remedy="is the judge's server up and its key right? An earlier calibration still stands",
        )
    skipped = [mark.reason for mark in marks if mark.status == "skipped"]
    if len(skipped) == len(marks):
        raise InputError(f"no label can be graded: {skipped[0]}", remedy="add it to the lines of the labels")
