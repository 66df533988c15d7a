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
from lockgate.evals.judges.agreement import between_people
from lockgate.evals.judges.calibration import Calibration, Pair, calibrate, judge_digest
from lockgate.evals.judges.labels import Label, comparable, lengths, one_an_answer
from lockgate.evals.judges.pairwise import prefer
from lockgate.evals.model import JudgeSettings, Metric, Rubric
from lockgate.evals.rubric import needs_judge
from lockgate.evals.running.meter import METER, Meter, Spend, counted
from lockgate.evals.running.pace import Pace
from lockgate.evals.scorers.judge import Ask, JudgeReply
from lockgate.evals.scorers.making import make_scorer
from lockgate.evals.scorers.questions import question_of
from lockgate.evals.scorers.sample import Mark, as_text, input_text
from lockgate.money import show_usd, to_nano
from lockgate.storage.engine import Database

AT_ONCE = 8
"""Answers graded at a time."""
PAIRS = 20
"""Pairs of answers compared in both orders."""
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
        pairs: int = PAIRS,
        agent: str = "",
    ) -> Calibration:
        """Ask the judge about every labelled answer, and store how far it agrees.

        Up to ``pairs`` pairs of answers to one input are compared by it in both orders, for its bias by position.
        Nothing is sent that could pass ``max_usd``. Raises :class:`~lockgate.errors.Unavailable`, and stores nothing,
        when that or a failing provider left too little graded; :class:`~lockgate.errors.InputError` when the labels
        lack what the metric needs.
        """
        people = between_people((label.item, label.annotator, label.human) for label in labels if label.annotator)
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

        async def compare(left: Label, right: Label, member: int) -> tuple[float, float] | None:
            METER.set(Meter(spend, pace))
            async with turn:
                try:
                    found = await prefer(
                        _member(counted(ask, spend), member),
                        f"Which of the two answers is the better one by this measure? {question_of(metric)}",
                        input_text(left.sample.input),
                        as_text(left.sample.output),
                        as_text(right.sample.output),
                    )
                except (LockgateError, TimeoutError):
                    return None  # its bias by position is then known from fewer pairs, and the record says how many
                return found.placed

        compared = await asyncio.gather(
            *(
                compare(left, right, member)
                for left, right in comparable(labels)[:pairs]
                for member in range(1 + len(settings.panel))
            )
        )
        graded = [
            Pair(item=label.item, human=label.human, judge=mark.value, length=length, weight=label.weight)
            for label, mark, length in zip(labels, marks, lengths(labels), strict=True)
        ]
        swapped = [one for one in compared if one is not None]
        found = calibrate(graded, settings, metric, now=self._clock(), swapped=swapped, people=people)
        found = msgspec.structs.replace(found, agent=agent, spent_nano=spend.nano)
        store.save(self._control, found)
        return found

    def calibration(self, settings: JudgeSettings, metric: Metric, agent: str = "") -> Calibration | None:
        """The newest calibration of exactly this judge on this metric: on the agent's answers, else on any."""
        return store.last(self._control, judge_digest(settings, metric), agent)

    def export(self) -> list[Calibration]:
        """The newest calibration of each judge on each metric and agent: what another database has to know."""
        newest: dict[tuple[str, str], Calibration] = {}
        for one in store.listed(self._control, limit=10_000):
            newest.setdefault((one.digest, one.agent), one)
        return sorted(newest.values(), key=lambda one: (one.metric, one.model, one.agent, one.digest))

    def take(self, found: Sequence[Calibration]) -> int:
        """Keep calibrations of another database; those that are not newer than what is here stay out. How many are."""
        taken = 0
        for one in found:
            known = store.last(self._control, one.digest, one.agent)
            if known is None or known.agent != one.agent or known.created_at < one.created_at:
                store.save(self._control, one)
                taken += 1
        return taken

    def uncalibrated(self, rubric: Rubric, agent: str = "") -> list[str]:
        """The rubric's judged metrics without a good calibration of exactly this judge, each with why where it was
        tried."""
        found = []
        for metric in rubric.metrics:
            if metric.name in needs_judge(rubric):
                known = None if rubric.judge is None else self.calibration(rubric.judge, metric, agent)
                if known is None:
                    found.append(metric.name)
                elif not known.good:
                    found.append(f"{metric.name} ({known.why_not})")
        return found

    def list(self) -> list[Calibration]:
        """All calibrations, the newest first."""
        return store.listed(self._control)


def _member(ask: Ask, number: int) -> Ask:
    async def one(messages: list[dict[str, str]], schema: dict[str, object], *, member: int = 0) -> JudgeReply:
        return await (ask(messages, schema, member=number) if number else ask(messages, schema))

    return one


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
