"""Memory that is free again goes back to the machine.

The C library keeps what large bodies and long streams needed for as long as anything small lies above it, which in a
busy worker is for ever. So a worker that holds a lot asks it, now and then, to give back every page that is free.
"""

from __future__ import annotations

import ctypes
import os
import time

ABOVE = 128 * 1024 * 1024
"""Bytes of resident memory above which a worker gives back what is free."""
EVERY = 10.0
"""Seconds between two looks."""


class Memory:
    """One per process. :meth:`tidy` may be called as often as one likes, from one thread."""

    def __init__(self) -> None:
        self._due = 0.0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone

    def tidy(self) -> None:
        """Look, if it is time to; takes some milliseconds when there is much to give back."""
        now = time.monotonic()
        if self._trim is not None and now >= self._due:
            self._due = now + EVERY
            if resident() > ABOVE:
                self._trim(0)


def resident() -> int:
    """Bytes of this process that are in memory; 0 where that cannot be read."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
