"""Ends a trial that keeps the event loop to itself: code that never awaits can be timed out by nobody inside it.

A thread looks whether the loop still turns. When it has not for as long as a trial may take, :class:`Stuck` is raised
in the loop's own thread, in whatever Python code runs there. Code that does not come back to Python at all (a C
function that never returns) cannot be reached: then the process ends, as one that could not evaluate.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

BEYOND_REACH = 3
"""Times that code is asked to stop, each after the patience has passed again, before the process ends."""
COULD_NOT_EVALUATE = 4
SLACK = 5.0
"""Seconds beyond its own that a trial may keep the loop to itself."""


class Stuck(BaseException):
    """A trial kept the event loop to itself; no ``except Exception`` of an agent's swallows it."""


class Watchdog:
    """A context around trials on one event loop. ``patience``: seconds the loop may stand still."""

    def __init__(self, patience: float, *, leave: Callable[[int], None] = os._exit) -> None:
        self._patience = patience
        self._leave = leave
        self._turned = time.monotonic()
        self._stalled = 0.0
        self._over = threading.Event()
        self._thread = threading.get_ident()

    async def __aenter__(self) -> Watchdog:
        self._turning = asyncio.create_task(self._turn())
        threading.Thread(target=self._watch, name="eval-watchdog", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._turning.cancel()

    def stalled(self) -> float:
        """Seconds so far in which the loop stood still: no other trial could go on meanwhile."""
        return self._stalled + max(0.0, time.monotonic() - self._turned - 1.0)

    async def _turn(self) -> None:
        while True:
            self._stalled = self.stalled()
            self._turned = time.monotonic()
            await asyncio.sleep(min(0.5, self._patience / 4))

    def _watch(self) -> None:
        every, seen = min(0.5, self._patience / 4), self._turned
        asked = rounds = 0
        while not self._over.wait(every):
            if self._turned != seen:
                seen, asked, rounds = self._turned, 0, 0
                continue
            # Counted, not read off the clock: while the machine gave this thread no time, the loop had none either.
            rounds += 1
            still = rounds * every
            if still < self._patience * (1 + asked):
                continue
            if asked == BEYOND_REACH:
                sys.stderr.write(
                    f"could not evaluate: the agent's code has held the process for {still:.0f} s and cannot be "
                    "stopped; finished trials are kept\n"
                )
                sys.stderr.flush()
                self._leave(COULD_NOT_EVALUATE)
                return
            asked += 1
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(Stuck))
