"""How fast a budget is spent: a rate in which each cost counts half as much after each half-life. Pure."""

from __future__ import annotations

from math import log

HALF_LIFE = 600.0
"""Seconds after which a cost counts half as much."""
_YOUNGEST = 60.0  # seconds: a few calls in a second are no sign of as many in each


def faded(rate: float, at: float, now: float) -> float:
    """What is left ``now`` of a rate as of ``at``."""
    return rate * 2 ** (min(0.0, at - now) / HALF_LIFE)


def part(amount: float, at: float, now: float) -> float:
    """What an ``amount`` that was spent at ``at`` is of the rate ``now``, units a second."""
    return faded(amount * log(2) / HALF_LIFE, at, now)


def of_its_life(rate: float, since: float, now: float) -> float:
    """The rate of an account that is there ``since`` then: a young one's is that of its life, of a minute at least."""
    return max(0.0, rate) / (1 - 2 ** -(max(_YOUNGEST, now - since) / HALF_LIFE))
