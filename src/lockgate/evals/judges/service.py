"""Calibrates a judge: asks it what people were asked, and keeps what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from lockgate.clock import Clock
from lockgate.errors import LockgateError
from lockgate.evals.judges import store
from lockgate.evals.judges.calibration import Calibration, Pair, calibrate, judge_digest
from lockgate.evals.judges.labels import Label, lengths
from lockgate.evals.model import JudgeSettings, Metric
from lockgate.evals.rubric import make_scorer
from lockgate.evals.scorers.judge import Ask
from lockgate.evals.scorers.sample import Mark
from lockgate.storage.engine import Database

AT_ONCE = 8
"""Answers graded at a time."""


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
        at_once: int = 8,
    ) -> Calibration:
        """Ask the judge about every labelled answer, and store how far it agrees."""
        scorer = make_scorer(metric, root, ask=ask, judge=settings)
        turn = asyncio.Semaphore(AT_ONCE)

        async def grade(label: Label) -> float | None:
            async with turn:
                try:
                    mark = scorer(label.sample)
                    return (mark if isinstance(mark, Mark) else await mark).value
                except (LockgateError, TimeoutError):
                    return None  # unscored, and counted

        graded = await asyncio.gather(*(grade(label) for label in labels))
        pairs = [
            Pair(item=label.item, human=label.human, judge=value, length=length)
            for label, value, length in zip(labels, graded, lengths(labels), strict=True)
        ]
        found = calibrate(pairs, settings, metric, now=self._clock())
        store.save(self._control, found)
        return found

    def calibration(self, settings: JudgeSettings, metric: Metric) -> Calibration | None:
        """The newest calibration of exactly this judge on this metric."""
        return store.last(self._control, judge_digest(settings, metric))

    def list(self) -> list[Calibration]:
        """All calibrations, the newest first."""
        return store.listed(self._control)
