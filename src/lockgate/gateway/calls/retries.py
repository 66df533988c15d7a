"""When a failed attempt may be made again, and where. Pure.

On the same upstream only where the failed one surely cost nothing: it never left this machine, or the provider said
that it did not serve it. On the next of the chain also where its outcome is unknown: then that one is charged in full.
Delays: exponential with jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, "equal").
"""

from __future__ import annotations

from typing import Literal, NamedTuple

UNKNOWN_OUTCOME = frozenset((502, 504, *range(520, 528)))
"""Answers of a proxy on the way, not of the provider: it may have served the call, and billed it."""
NOT_SERVED = frozenset((408, 425, 429, 500, 503, 529))
"""The provider says that it did not do it, and that it may later."""
CALLERS_FAULT = frozenset((400, 409, 411, 412, 413, 414, 415, 416, 417, 422, 431))
"""Another upstream would say the same."""

UPSTREAMS_FAULT = frozenset(("upstream_error", *(str(status) for status in range(500, 600))))
"""How an attempt ended, in words for spans, where that speaks against the upstream."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 4.0
"""Seconds. A provider that asks for a longer pause is not waited for."""

Verdict = Literal["again", "next", "stop"]


class Trouble(NamedTuple):
    """How an attempt failed: ``status`` None when no answer came."""

    sent: bool
    status: int | None = None
    retry_after: float | None = None


def verdict(trouble: Trouble) -> Verdict:
    """What may be tried next: the same upstream, only another one, or none."""
    if trouble.status is not None:
        if trouble.status in NOT_SERVED:
            return "again"
        return "stop" if trouble.status in CALLERS_FAULT else "next"
    return "next" if trouble.sent else "again"


def pause(retry: int, trouble: Trouble, *, left: float, chance: float) -> float | None:
    """Seconds before the retry of this number (from 1); None when it is not worth waiting.

    ``left``: seconds until the call's deadline. ``chance``: a random number, 0..1.
    """
    backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (retry - 1)) * (0.5 + chance / 2)
    wait = max(backoff, trouble.retry_after or 0.0)
    return wait if wait <= LONGEST_PAUSE and wait < left else None


def seconds_to_wait(header: str | None) -> float | None:
    """``Retry-After`` in seconds, as providers write it; None for a date or nonsense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
