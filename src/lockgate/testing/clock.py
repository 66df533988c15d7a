"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A :data:`lockgate.clock.Clock`: calling it gives now in Unix seconds.

    >>> clock = FakeClock(1000.0)
    >>> clock.advance(60)
    >>> clock()
    1060.0
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``; time does not go back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {seconds!r} seconds")
        self.now += seconds
