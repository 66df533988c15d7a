"""Trials that run one after another in one task, as if each had its own."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from lockgate.evals.model import Case, Subject
from lockgate.evals.running.meter import Meter, Spend
from lockgate.evals.running.pace import Pace
from lockgate.evals.running.place import Attempt, Place
from lockgate.results import RunResult

CASES = [Case(id=f"c{number}", input=f"input {number}") for number in range(4)]


async def ran(subject: Subject, *, timeout: float = 30.0) -> dict[str, RunResult]:
    """The results by case, with one place."""
    todo = list(CASES)
    found: dict[str, RunResult] = {}

    async def begin() -> Attempt | None:
        return Attempt(0, 0, todo.pop(0), Meter(Spend(), Pace(1)), stalled=0.0) if todo else None

    async def end(attempt: Attempt, result: RunResult) -> None:
        found[attempt.case.id] = result

    await Place(subject, timeout=timeout, begin=begin, end=end, stalled=lambda: 0.0).run()
    return found


async def test_what_a_trial_sets_in_its_context_the_next_does_not_see() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")

    async def subject(case: Case, trial: int) -> RunResult:
        before = seen.get()
        seen.set(case.id)
        await asyncio.sleep(0)
        return RunResult(status="completed", output=[before, seen.get()])

    found = await ran(subject)
    assert [one.output for one in found.values()] == [["nothing", case.id] for case in CASES]


async def test_a_trial_that_cancels_itself_is_a_failed_one_and_the_others_are_not() -> None:
    """At once, in its next wait, or when it is over already."""

    async def subject(case: Case, trial: int) -> RunResult:
        if case.id == "c0":
            raise asyncio.CancelledError
        if case.id in ("c1", "c2"):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        if case.id == "c1":
            await asyncio.Event().wait()
        return RunResult(status="completed", output="done")

    found = await ran(subject)
    assert [(one.error_type, one.output) for one in found.values()] == [
        ("cancelled", None),
        ("cancelled", None),
        (None, "done"),
        (None, "done"),
    ]


async def test_a_trial_that_answers_when_its_time_is_over_has_not_answered() -> None:
    async def subject(case: Case, trial: int) -> RunResult:
        if case.id == "c1":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return RunResult(status="completed", output="too late")
        return RunResult(status="completed", output="done")

    found = await ran(subject, timeout=0.05)
    assert [(one.error_type, one.output) for one in found.values()] == [
        (None, "done"),
        ("trial_timeout", None),
        (None, "done"),
        (None, "done"),
    ]
