"""Deadlines, and whatever else ends a wait early, for all the waits of one event loop together."""

from __future__ import annotations

import asyncio
from time import monotonic

_ROUND = 0.05  # seconds between two rounds; a wait that is over sooner is never looked at


class Watchman:
    """Looks after the waits of one event loop: deadlines, and clients that leave.

    Timers of their own for each of a request's waits would cost as much as a tenth of the request, and nearly all of
    them are over at once. So waits only note themselves here, and one round of all of them is made twenty times a
    second, for as long as there are any.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.waits: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, seconds: float) -> _Deadline:
        """``with watchman.expect(60): await …`` raises TimeoutError after so many seconds (or a round later)."""
        return _Deadline(self, monotonic() + seconds)

    def wake(self) -> asyncio.AbstractEventLoop:
        """Make rounds as long as there are waits."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()  # each time anew would take a system call
        if self._timer is None:
            self._timer = loop.call_later(_ROUND, self._round)
        return loop

    def _round(self) -> None:
        self._timer = None
        now = monotonic()
        for wait in list(self.waits):
            wait.look(now)
        if self.waits and self._loop is not None:
            self._timer = self._loop.call_later(_ROUND, self._round)


class Wait:
    """A wait of the running task that may be cancelled, and what its cancellation means."""

    __slots__ = ("_cancelled", "_task", "_watchman")

    def __init__(self, watchman: Watchman) -> None:
        self._watchman = watchman
        self._cancelled = False

    def __enter__(self) -> None:
        watchman = self._watchman
        task = asyncio.current_task(watchman.wake())
        assert task is not None
        self._task = task
        watchman.waits.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self._watchman.waits.discard(self)
        if self._cancelled and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise self.meaning() from error

    def cancel(self, _: object = None) -> None:
        self._cancelled = True
        self._task.cancel()

    def look(self, now: float) -> None:
        raise NotImplementedError

    def meaning(self) -> Exception:
        raise NotImplementedError


class _Deadline(Wait):
    __slots__ = ("_until",)

    def __init__(self, watchman: Watchman, until: float) -> None:
        self._watchman = watchman
        self._cancelled = False
        self._until = until

    def look(self, now: float) -> None:
        if now >= self._until and not self._cancelled:
            self.cancel()

    def meaning(self) -> Exception:
        return TimeoutError()
