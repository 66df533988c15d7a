"""Which arm an assignment key gets, before anybody has written it down."""

from __future__ import annotations

import hashlib

from lockgate.runs import Arm

_RANGE = 1 << 64


def position(rollout_id: str, key: str) -> float:
    """Where the key lies in [0, 100): uniform over keys, unrelated between rollouts."""
    hashed = hashlib.sha256(f"{rollout_id}\0{key}".encode()).digest()
    return int.from_bytes(hashed[:8]) * 100 / _RANGE


def choose(rollout_id: str, key: str, weight: float) -> Arm:
    """The arm of a new key at ``weight`` percent.

    Monotone: a key that is the candidate's at some weight is the candidate's at every higher one. What was assigned
    before is kept by the store, whatever the weight has become.
    """
    return "candidate" if position(rollout_id, key) < weight else "stable"
