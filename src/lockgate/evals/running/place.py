"""One place of those in which trials run at once: one after another, and each of them ends.

From an answer to the next trial's call is one step of the event loop. With a task a trial it would be four, and where a
hundred answers come at once, each of them would wait at every step for all the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
import types
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import msgspec

from lockgate.errors import InputError, Killed, LockgateError
from lockgate.evals.model import Case, Subject
from lockgate.evals.running.meter import Meter
from lockgate.evals.running.watchdog import Stuck
from lockgate.results import RunResult

_LOG = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that a cancelled trial has to end; then it is left behind."""


class Attempt:
    """One attempt at one trial. ``stalled``: seconds in which the event loop had stood still when it began."""

    def __init__(self, row: int, trial: int, case: Case, meter: Meter, *, stalled: float) -> None:
        self.row = row
        self.trial = trial
        self.case = case
        self.meter = meter
        self.stalled = stalled
        self.began = time.monotonic()

    @property
    def took(self) -> float:
        return time.monotonic() - self.began


class Place:
    """Runs what ``begin`` gives, until it gives None, and hands each result to ``end``.

    A trial that is not over after ``timeout`` seconds is cancelled, and the others go on without it. Waiting for a
    provider's rate limit is not held against it, nor is the time in which another trial kept the event loop to itself
    (``stalled``: seconds so far). Raises what ends the whole evaluation: a kill switch, a case that cannot be run.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        timeout: float,
        begin: Callable[[], Awaitable[Attempt | None]],
        end: Callable[[Attempt, RunResult], Awaitable[None]],
        stalled: Callable[[], float],
    ) -> None:
        self.left_behind = 0
        self._subject = subject
        self._timeout = timeout
        self._begin = begin
        self._end = end
        self._stalled = stalled
        self._task: asyncio.Task[None] | None = None
        self._attempt: Attempt | None = None

    async def run(self) -> None:
        over = False
        while not over:
            self._task = task = asyncio.ensure_future(self._one_after_another())
            try:
                over = await self._watch(task)
            except asyncio.CancelledError:
                self._task = None
                task.cancel()
                raise

    async def _watch(self, task: asyncio.Task[None]) -> bool:
        """Wait until nothing is left to run, or a trial's time is over; which of the two."""
        left = self._timeout
        while True:
            done, _ = await asyncio.wait((task,), timeout=left)
            attempt = self._attempt
            if done:
                task.result()
                return True
            left = self._timeout if attempt is None else self._left(attempt)
            if attempt is not None and left <= 0:
                break
        self._task = self._attempt = None
        task.cancel()
        ended, _ = await asyncio.wait((task,), timeout=GRACE)
        self.left_behind += not ended
        await self._end(attempt, self._timed_out(attempt))
        return False

    def _left(self, attempt: Attempt) -> float:
        """Seconds that a trial still has."""
        not_its_own = attempt.meter.waited + self._stalled() - attempt.stalled
        return self._timeout + not_its_own - attempt.took

    async def _one_after_another(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while self._task is me and (attempt := await self._begin()) is not None:
            self._attempt = attempt
            result = await self._result(attempt, me)
            if self._task is not me:
                return  # its time was over
            self._attempt = None
            if me.cancelling():  # by the trial itself: that was no word on the next
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
                while me.uncancel():
                    pass
            await self._end(attempt, result)

    async def _result(self, attempt: Attempt, me: asyncio.Task[None]) -> RunResult:
        case, meter = attempt.case, attempt.meter
        try:
            result: RunResult = await _alone(self._subject(case, attempt.trial).__await__())
        except asyncio.CancelledError:
            if self._task is not me:
                raise
            return _failed("cancelled", "the run was cancelled", attempt)
        except Stuck:
            return self._timed_out(attempt)
        except Killed:
            raise
        except InputError as failure:
            raise InputError(f"case {case.id!r} cannot be run: {failure.message}", remedy=failure.remedy) from failure
        except Exception as failure:  # a subject may raise anything: it is that trial's outcome
            if not isinstance(failure, LockgateError):
                _LOG.warning("the subject raised on case %s", case.id, exc_info=failure)
            return _failed("subject_error", f"{type(failure).__name__}: {failure}"[:500], attempt)
        if result.seconds > 0 and not meter.waited:
            return result
        return msgspec.structs.replace(result, seconds=max(0.0, (result.seconds or attempt.took) - meter.waited))

    def _timed_out(self, attempt: Attempt) -> RunResult:
        return _failed("trial_timeout", f"no answer in {self._timeout:g} s", attempt)


def _failed(kind: str, said: str, attempt: Attempt) -> RunResult:
    return RunResult(status="failed", error_type=kind, error=said, seconds=attempt.took)


@types.coroutine
def _alone(trial: Generator[Any, Any, RunResult]) -> Generator[Any, Any, RunResult]:
    """Run it in a context of its own: what it sets there, the next one does not see."""
    within, step, given = copy_context().run, trial.send, None
    while True:
        try:
            wanted = within(step, given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            given = yield wanted
            step = trial.send
        except BaseException as failure:
            step, given = trial.throw, failure
