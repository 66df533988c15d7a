"""Whether an instance runs what it should, since when it does not, and whether it is still there. Pure."""

from __future__ import annotations

import re

from lockgate.fleet.heartbeats.model import Reported, State, Wanted

MISSED = 3
"""Heartbeats that may be missed: one more, and the instance counts as missing."""
LAG_SECONDS = 300.0
"""How long an instance may take to come to its version before somebody is told, at the least."""

_HEX = re.compile(r"[0-9a-f]{12,64}")


def runs(said: str, wanted: Wanted) -> bool:
    """Whether a version as an instance names it is the wanted one: ``agent@sha256:…``, 12 hex of it, ``3`` or ``v3``.

    A version that is not named, or by too little, is not.
    """
    value = said.rpartition("@")[2].removeprefix("sha256:").removeprefix("v")
    if _HEX.fullmatch(value):
        return any(
            digest.removeprefix("sha256:").startswith(value)
            for digest in (wanted.behaviour_digest, wanted.effective_digest)
        )
    return value.isdecimal() and len(value) < 10 and wanted.file_version > 0 and int(value) == wanted.file_version


def behind_since(known: Reported, wanted: Wanted | None) -> float | None:
    """Since when it runs another version than it should; None when it does not, or says nothing of its version, or
    nothing is deployed there."""
    if wanted is None or not known.version or runs(known.version, wanted):
        return None
    if known.behind_since is not None:
        return known.behind_since
    return max(wanted.since, known.first_seen_at)


def state(known: Reported, now: float) -> State:
    """``missing`` once too many heartbeats did not come; one that said it stops may be away."""
    gone = now - known.last_seen_at > known.interval * MISSED
    return "missing" if gone and known.status != "stopping" else known.status


def lags(known: Reported, since: float | None, now: float) -> bool:
    """Whether somebody should be told: it had the time to hear of its version, and to pull it."""
    return since is not None and now - since > max(LAG_SECONDS, known.interval * MISSED)
