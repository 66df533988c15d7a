"""Who pays for a call: the budgets of its run, its agent's day and its tenant's, all held at once."""

from __future__ import annotations

from lockgate.clock import Clock
from lockgate.errors import InputError
from lockgate.gateway.calls.call import Call
from lockgate.gateway.directory import Directory
from lockgate.limits.budgets import accounts_for, estimate_tokens
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Hold
from lockgate.limits.prices import Price
from lockgate.money import Nano


class Budgets:
    """The meter of a gateway worker."""

    def __init__(self, *, directory: Directory, holds: HoldTable, clock: Clock) -> None:
        self._directory = directory
        self._holds = holds
        self._clock = clock
        self.mark_sent = holds.mark_sent

    def admit(self, call: Call) -> None:
        """Everybody who is known may call."""

    def hold(self, call: Call, price: Price, size: int, max_tokens: int, n: int, extra: int) -> Hold:
        identity, run, now = call.identity, call.run, self._clock()
        route = self._directory.routes.settings_of(identity.environment, run.agent) if run else None
        accounts = accounts_for(
            environment=identity.environment,
            tenant=identity.tenant,
            agent=call.agent,
            run=run,
            settings=route.settings if route else None,
            tenant_daily_usd=self._directory.settings.value(
                "tenant.daily_usd", environment=identity.environment, tenant=identity.tenant
            ),
            now=now,
        )
        unbounded = call.request.unbounded
        if unbounded is not None and any(account.unit == "usd" and account.cap is not None for account in accounts):
            raise InputError(
                f"what {unbounded!r} costs cannot be told beforehand, and a budget applies to this call",
                remedy=f"leave {unbounded!r} out",
            )
        bound = price.bound(size, max_tokens, n, extra)
        tokens = estimate_tokens(size, max_tokens, n) + extra
        return self._holds.hold(accounts, bound, now=now, tokens=tokens)

    def settle(self, call: Call, hold: Hold, actual: Nano, tokens: int | None) -> None:
        self._holds.settle(hold, actual, tokens=tokens)

    def release(self, call: Call, hold: Hold) -> None:
        self._holds.release(hold)

    def leave(self, call: Call) -> None:
        """Nothing was taken by :meth:`admit`."""
