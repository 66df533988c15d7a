"""Accounts and holds: what a budget is made of."""

from __future__ import annotations

import msgspec

from lockgate.money import Nano


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in one window, e.g. ``agent:prod:refund-triage`` in ``2026-11-21``.

    ``cap`` is in nano-USD (None: counted, not capped).
    """

    name: str
    window: str  # "" for a budget that never rolls over, such as a run's
    cap: Nano | None


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What an account stands at."""

    account: str
    window: str
    cap: Nano | None
    settled: Nano
    held: Nano

    @property
    def left(self) -> Nano | None:
        return None if self.cap is None else max(0, self.cap - self.settled - self.held)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money reserved before a call; settle it exactly once."""

    slot: int
    generation: int  # tells a reused slot from the one that was meant
    amount: Nano
