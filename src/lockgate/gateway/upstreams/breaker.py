"""A circuit breaker: after so many failures in a row nothing is sent for a while, then one call may try. Pure.

closed --threshold failures in a row--> open --reset seconds--> half open --one success--> closed
                                          ^                         |
                                          +--------one failure------+
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half_open"]

THRESHOLD = 5
RESET_SECONDS = 300.0
PROBE_SECONDS = 60.0
"""A probe that was let through and never came back counts as lost after so long."""


class Breaker:
    """One breaker. Times are seconds of any one clock, given by the caller."""

    __slots__ = ("_opened_at", "_probing_since", "failures", "reset", "threshold")

    def __init__(self, threshold: int = THRESHOLD, reset: float = RESET_SECONDS) -> None:
        self.threshold = threshold
        self.reset = reset
        self.failures = 0
        """In a row."""
        self._opened_at: float | None = None
        self._probing_since: float | None = None

    def state(self, now: float) -> State:
        if self._opened_at is None:
            return "closed"
        return "open" if now - self._opened_at < self.reset else "half_open"

    def allows(self, now: float) -> bool:
        """Whether a call may go through. In half open, the first one that asks is the probe, and no other may."""
        if self._opened_at is None:
            return True
        if now - self._opened_at < self.reset:
            return False
        if self._probing_since is not None and now - self._probing_since < PROBE_SECONDS:
            return False
        self._probing_since = now
        return True

    def would_allow(self, now: float) -> bool:
        """As :meth:`allows`, without being the probe."""
        if self._opened_at is None:
            return True
        if now - self._opened_at < self.reset:
            return False
        return self._probing_since is None or now - self._probing_since >= PROBE_SECONDS

    def succeeded(self, now: float) -> bool:
        """A call went well. True when that closes the breaker."""
        closed = self._opened_at is not None and now - self._opened_at >= self.reset
        if self._opened_at is None or closed:
            self.failures = 0
            self._opened_at = self._probing_since = None
        return closed

    def failed(self, now: float) -> bool:
        """A call failed. True when that opens the breaker, or opens it again."""
        self.failures += 1
        was = self.state(now)
        if was == "open" or (was == "closed" and self.failures < self.threshold):
            return False
        self._opened_at, self._probing_since = now, None
        return True

    def heard(self, is_open: bool, at: float) -> None:
        """Another worker's opened, or closed, ``at`` that time."""
        if is_open and (self._opened_at is None or at > self._opened_at):
            self.failures, self._probing_since = max(self.failures, self.threshold), None
            self._opened_at = at
        elif not is_open and self._opened_at is not None and at > self._opened_at:
            self.failures = 0
            self._opened_at = self._probing_since = None

    def forgot(self) -> None:
        """A probe ended without an answer to learn from (its client left, say): the next call may be one."""
        self._probing_since = None

    def seconds_left(self, now: float) -> float:
        """Until a call may try again; 0 when it may now."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self.reset - now)
