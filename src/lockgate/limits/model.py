"""Accounts and holds: what a budget is made of."""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.money import Nano

Unit = Literal["usd", "tokens", "calls"]
"""What an account counts: nano-USD, tokens, or calls."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in one window, e.g. ``agent:prod:refund-triage`` in ``2026-11-21``.

    ``cap`` is in the account's unit (nano-USD, tokens, calls; None: counted, not capped).
    """

    name: str
    window: str  # a UTC day, or "" for a budget that never rolls over, such as a run's
    cap: int | None
    unit: Unit = "usd"


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What an account stands at, in its unit. ``refused`` counts the calls it turned away."""

    account: str
    window: str
    cap: int | None
    settled: int
    held: int
    unit: Unit = "usd"
    refused: int = 0
    touched_at: float = 0.0

    @property
    def left(self) -> int | None:
        return None if self.cap is None else max(0, self.cap - self.settled - self.held)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money reserved before a call; settle it exactly once."""

    slot: int
    generation: int  # tells a reused slot from the one that was meant
    amount: Nano
    tokens: int = 0
