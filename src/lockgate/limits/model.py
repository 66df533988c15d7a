"""Accounts, rates and holds: what a limit is made of."""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.money import Nano

Unit = Literal["usd", "tokens", "calls", "concurrent"]
"""What an account counts: nano-USD, tokens, calls, or calls under way at the same time."""

RateUnit = Literal["requests", "tokens"]

Key = tuple[str, str, str]
"""An account's name, window and unit."""


class Account(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """One budget in one window, e.g. ``agent:prod:refund-triage`` in ``2026-11-21``.

    ``cap`` is in the account's unit (None: counted, not capped). ``leased``: the cap holds over several machines, and
    this one may spend only what it has leased of it (see ``leases.py``).
    """

    name: str
    window: str  # a day, a month (``2026-11``), or "" for a budget that never rolls over, such as a run's
    cap: int | None
    unit: Unit = "usd"
    leased: bool = False

    @property
    def key(self) -> Key:
        return self.name, self.window, self.unit


class Rate(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """A token bucket: ``per_minute`` requests or tokens, and at most as many at once as a minute brings.

    ``member`` is who asks among those that share it (a key of a tenant…): when the bucket is half empty, nobody gets
    more than an equal share of what flows in, so that one busy member cannot starve the others.
    """

    name: str
    per_minute: float
    unit: RateUnit = "requests"
    member: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A rate as one call left it: what may still be asked for at once, and the seconds until it is full again."""

    name: str
    unit: RateUnit
    limit: float
    remaining: int
    reset: float


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What an account stands at, in its unit. ``refused`` counts the calls it turned away.

    ``granted`` is what this machine may spend of the cap, where it is leased.
    """

    account: str
    window: str
    cap: int | None
    settled: int
    held: int
    unit: Unit = "usd"
    refused: int = 0
    touched_at: float = 0.0
    granted: int | None = None

    @property
    def key(self) -> Key:
        return self.account, self.window, self.unit

    @property
    def left(self) -> int | None:
        return None if self.cap is None else max(0, self.cap - self.settled - self.held)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money reserved before a call; settle it exactly once."""

    slot: int
    generation: int  # tells a reused slot from the one that was meant
    amount: Nano
    tokens: int = 0
    standings: tuple[Standing, ...] = ()


class Charged(msgspec.Struct, frozen=True, kw_only=True):
    """A hold charged in full because its process died after the call had been sent: what it used is not known."""

    tag: int
    created_at: float
    tokens: int
    parts: tuple[tuple[Key, int], ...]


class LeaseNeeded(Exception):
    """This machine has leased too little of some caps that are not used up: ask the store, then try again.

    ``short`` names each account and the grant it would have to reach.
    """

    def __init__(self, short: tuple[tuple[Account, int], ...]) -> None:
        super().__init__(", ".join(account.name for account, _ in short))
        self.short = short
