"""How many trials run at a time: as many as were asked for, fewer while a provider says "too many", then more again.

Additive increase, multiplicative decrease (as in TCP): the first 429 of a round halves the limit, and every success
adds a tenth of a trial. Nothing is sent before the time that the provider named in ``Retry-After``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SLOWEST = 1.0
GROWTH = 0.1
BACKOFF = 1.0
"""Seconds to wait after a 429 that names no time; it doubles while they go on, up to :data:`LONGEST`."""
LONGEST = 60.0
HOPELESS_ROUNDS = 8
HOPELESS_SECONDS = 120.0
"""A provider that refused so many rounds in a row, for so long, is asked no more: a quota used up says 429 for ever."""
HOPELESS_PAUSE = 600.0
"""Nor is one that asks for a longer pause than this, in seconds."""


class Pace:
    """One evaluation's. ``most`` is the concurrency asked for; ``limit`` what the provider bears now."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = float(most)
        self.running = 0
        self.sending = 0  # calls under way
        self.backoffs = 0
        self._now = now
        self._until = 0.0
        self._cut_at = 0.0
        self._in_a_row = 0
        self._refused_since = 0.0
        self._changed = asyncio.Event()

    @property
    def pause(self) -> float:
        """Seconds until something may be sent."""
        return max(0.0, self._until - self._now())

    @property
    def full(self) -> bool:
        """Whether as many calls are under way as the provider bears: trials begun before the limit was cut wait too."""
        return self.limit < self.most and self.sending >= max(1, int(self.limit))

    @property
    def hopeless(self) -> bool:
        """Whether the provider will not have it, however long one waits."""
        refused = self._in_a_row >= HOPELESS_ROUNDS and self._now() - self._refused_since >= HOPELESS_SECONDS
        return refused or self.pause > HOPELESS_PAUSE

    async def start(self) -> None:
        """Wait until one more trial may start, or it is hopeless, and count it; :meth:`end` gives its place back."""
        while not self.hopeless and (self.running >= max(1, int(self.limit)) or self.pause):
            self._changed.clear()
            try:
                async with asyncio.timeout(self.pause or None):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self.running += 1

    def end(self) -> None:
        self.running -= 1
        self._changed.set()

    def succeeded(self) -> None:
        """A call was answered."""
        self._in_a_row = 0
        if self.limit < self.most:
            self.limit = min(float(self.most), self.limit + GROWTH)
            self._changed.set()

    def limited(self, retry_after: float | None, *, sent_at: float) -> float:
        """A call that was sent at ``sent_at`` came back with 429. Returns the seconds to wait before another."""
        now = self._now()
        if sent_at >= self._cut_at:  # calls already under way when the limit was cut say nothing of the new one
            self.limit = max(SLOWEST, self.limit / 2)
            self._cut_at = now
            if not self._in_a_row:
                self._refused_since = now
            self._in_a_row += 1
            self.backoffs += 1
        wait = retry_after if retry_after is not None else min(LONGEST, BACKOFF * 2 ** (self._in_a_row - 1))
        self._until = max(self._until, now + wait)
        return wait
