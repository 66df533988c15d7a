"""Which of several upstreams is asked: the better of two drawn at random, leaving out those that stand out. Pure.

Power of two choices (Mitzenmacher, 2001) on expected wait: peak-sensitive moving average of latency × calls under way,
as in Finagle's and linkerd's "peak EWMA". Outliers: an error rate far above that of the others, as in Envoy's success
rate ejection, for a time that doubles with each ejection in a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

HALF_LIFE = 10.0
"""Seconds after which a latency that was seen weighs half."""
UNKNOWN_LATENCY = 0.05
"""Of an upstream that was not asked yet: it gets its share soon."""
ERROR_WEIGHT = 0.1
"""How much the last call counts in the rate of errors."""
EJECT_ABOVE = 0.3
"""A rate of errors that stands out, when it is also this much above the median of the others."""
EJECT_SECONDS = 30.0
MAX_EJECT_SECONDS = 300.0


class Quota:
    """What a key may ask in a minute, evenly spread: a token bucket that holds ten seconds' worth (GCRA)."""

    __slots__ = ("_due", "_each", "_slack", "per_minute")

    def __init__(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self._each = 60.0 / per_minute
        self._slack = max(self._each, 10.0)
        self._due = 0.0  # when all that was asked has been earned

    def wait(self, now: float) -> float:
        """Seconds until one more may be asked; 0: now."""
        return max(0.0, self._due + self._each - self._slack - now)

    def ask(self, now: float) -> None:
        self._due = max(self._due, now) + self._each


class Load:
    """What is known of one upstream: how slow, how busy, how often wrong."""

    __slots__ = ("busy", "capacity", "ejected_until", "ejections", "errors", "latency", "quota", "seen_at")

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        """Calls at a time; None: any number."""
        self.busy = 0
        self.latency = UNKNOWN_LATENCY
        self.errors = 0.0
        self.seen_at = 0.0
        self.ejected_until = 0.0
        self.ejections = 0
        self.quota: Quota | None = None

    @property
    def is_full(self) -> bool:
        return self.capacity is not None and self.busy >= self.capacity

    def took(self, seconds: float, now: float) -> None:
        """A call was answered after so long. A higher latency counts at once, a lower one little by little."""
        if seconds > self.latency or not self.seen_at:
            self.latency = seconds
        else:
            keep = math.exp2(-max(0.0, now - self.seen_at) / HALF_LIFE)
            self.latency = self.latency * keep + seconds * (1 - keep)
        self.seen_at = now
        self.errors *= 1 - ERROR_WEIGHT
        if self.errors < EJECT_ABOVE / 2:
            self.ejections = 0

    def failed(self, now: float) -> None:
        self.errors += (1 - self.errors) * ERROR_WEIGHT
        self.seen_at = now

    def cost(self, now: float) -> float:
        """What one more call would wait, seconds. An average grows stale: towards what is not known."""
        keep = math.exp2(-max(0.0, now - self.seen_at) / (HALF_LIFE * 6)) if self.seen_at else 0.0
        latency = self.latency * keep + UNKNOWN_LATENCY * (1 - keep)
        return latency * (self.busy + 1)


def eject(loads: Sequence[Load], now: float) -> list[int]:
    """Leave out those whose errors stand out: never more than half of them. Returns who was newly left out."""
    out: list[int] = []
    left_out = sum(load.ejected_until > now for load in loads)
    for index, load in enumerate(loads):
        if load.ejected_until > now or load.errors < EJECT_ABOVE or (left_out + 1) * 2 > len(loads):
            continue
        others = sorted(other.errors for other in loads if other is not load)
        if load.errors - others[len(others) // 2] < EJECT_ABOVE:
            continue
        load.ejected_until = now + min(MAX_EJECT_SECONDS, EJECT_SECONDS * 2**load.ejections)
        load.ejections += 1
        load.errors = 0.0  # it begins anew when it is back
        left_out += 1
        out.append(index)
    return out


def choose(loads: Sequence[Load], usable: Sequence[int], now: float, first: float, second: float) -> int | None:
    """The index of the one to ask; None when all of the usable ones are full.

    ``usable``: those whose breaker lets a call through, in the order they are listed. ``first``, ``second``: random
    numbers in [0, 1). Where some have a capacity they are filled in the order listed: the next is for what overflows.
    """
    free = [index for index in usable if not loads[index].is_full]
    if not free:
        return None
    kept = [index for index in free if loads[index].ejected_until <= now] or free
    if any(loads[index].capacity is not None for index in usable):
        return kept[0]
    if len(kept) == 1:
        return kept[0]
    one = min(int(first * len(kept)), len(kept) - 1)
    other = min(int(second * (len(kept) - 1)), len(kept) - 2)
    other += other >= one
    left, right = kept[one], kept[other]
    return left if loads[left].cost(now) <= loads[right].cost(now) else right
