"""What other traffic would cost, and whom the caps would stop: a day's calls played again. Pure.

Each recorded call stands for ``traffic × iterations`` calls of its cost, made evenly about its time. Calls are let
through in order while every cap that applies has enough left, as the hold table would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from lockgate.limits.model import Account
from lockgate.limits.reconcile import Paid
from lockgate.money import Nano


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """What one cap turned away of one tenant and agent."""

    account: str
    window: str
    cap: Nano
    tenant: str
    agent: str | None
    calls: float
    nano: Nano
    first_at: float


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``recorded`` is what the calls did cost."""

    calls: int
    factor: float
    recorded: Nano
    uncapped: Nano
    capped: Nano
    asked: float
    denied: float
    stops: tuple[Stop, ...]


def simulate(
    calls: Iterable[Paid], factor: float, accounts_of: Callable[[Paid], Sequence[Account]], steps: int = 20
) -> Bill:
    """Play the calls again, ``factor`` of each. ``accounts_of``: the accounts with caps in USD that a call falls
    under. A call's copies are let through in ``steps`` parts, so that a cap can stop some of them."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    denied: dict[tuple[str, str, Nano, str, str | None], list[float]] = {}
    recorded = count = 0
    uncapped = capped = asked = turned_away = 0.0
    for call in sorted(calls, key=lambda one: one.at):
        count += 1
        recorded += call.cost_nano
        uncapped += call.cost_nano * factor
        asked += factor
        caps = [account for account in accounts_of(call) if account.unit == "usd" and account.cap is not None]
        parts = max(1, min(steps, int(factor)))
        cost, copies = call.cost_nano * factor / parts, factor / parts
        for _ in range(parts):
            full = next((one for one in caps if spent[one.name, one.window] + cost > (one.cap or 0)), None)
            if full is None:
                capped += cost
                for one in caps:
                    spent[one.name, one.window] += cost
                continue
            turned_away += copies
            key = (full.name, full.window, full.cap or 0, call.tenant, call.agent)
            entry = denied.setdefault(key, [0.0, 0.0, call.at])
            entry[0] += copies
            entry[1] += cost
    stops = tuple(
        Stop(
            account=name, window=window, cap=cap, tenant=tenant, agent=agent, calls=entry[0], nano=round(entry[1]),
            first_at=entry[2],
        )
        for (name, window, cap, tenant, agent), entry in denied.items()
    )  # fmt: skip
    return Bill(
        calls=count,
        factor=factor,
        recorded=recorded,
        uncapped=round(uncapped),
        capped=round(capped),
        asked=asked,
        denied=turned_away,
        stops=stops,
    )
