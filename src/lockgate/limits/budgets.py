"""Which budgets a model call counts against. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from lockgate.limits.model import Account, Key
from lockgate.limits.windows import window_of
from lockgate.money import Nano, to_nano
from lockgate.settings.model import Snapshot
from lockgate.versions.model import AgentSettings


class RunLimits(Protocol):
    """What a run may use at most: the claims of a run token are one."""

    @property
    def run_id(self) -> str: ...
    @property
    def max_usd_nano(self) -> Nano | None: ...
    @property
    def max_llm_calls(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...


def accounts_for(
    *,
    environment: str,
    tenant: str,
    now: float,
    agent: str | None = None,
    settings: AgentSettings | None = None,
    run: RunLimits | None = None,
    day: str | None = None,
    limits: Sequence[Account] = (),
    leased: bool = False,
) -> list[Account]:
    """The accounts of one model call: its run's USD, tokens and calls; its agent's day; its tenant's day; and those of
    ``limits``. What has no cap is counted all the same; where an account has two caps, the smaller one holds.

    ``day`` is today's window where the project's days begin; UTC without it. ``leased``: caps hold over several
    machines, but for a run's, whose calls all come to one.
    """
    day = day or window_of(now)
    accounts: list[Account] = []
    if agent is not None:
        accounts += _agent_accounts(environment, agent, settings, day)
    accounts.append(Account(name=f"tenant:{environment}:{tenant}", window=day, cap=None))
    if limits:
        accounts = merged(accounts, limits)
    if leased:
        accounts = [
            account if account.cap is None or account.unit == "concurrent" else _leased(account) for account in accounts
        ]
    return accounts if run is None else run_accounts(run) + accounts


def _leased(account: Account) -> Account:
    return account if account.leased else msgspec.structs.replace(account, leased=True)


def merged(accounts: Sequence[Account], more: Sequence[Account]) -> list[Account]:
    """All of them, each account once, with the smaller of its caps."""
    found: dict[Key, Account] = {account.key: account for account in accounts}
    for account in more:
        other = found.get(account.key)
        caps = [one.cap for one in (other, account) if one is not None and one.cap is not None]
        found[account.key] = msgspec.structs.replace(account, cap=min(caps, default=None))
    return list(found.values())


def run_accounts(run: RunLimits) -> list[Account]:
    """The accounts of one run, which never roll over."""
    name = f"run:{run.run_id}"
    return [
        Account(name=name, window="", cap=run.max_usd_nano),
        Account(name=name, window="", cap=run.max_tokens, unit="tokens"),
        Account(name=name, window="", cap=run.max_llm_calls, unit="calls"),
    ]


def daily_caps(deployed: Iterable[tuple[str, str, AgentSettings]], day: Callable[[str], str]) -> list[Account]:
    """The capped accounts of (environment, agent, settings) today; ``day`` names an environment's day."""
    accounts = [account for entry in deployed for account in _agent_accounts(*entry, day(entry[0]))]
    return [account for account in accounts if account.cap is not None]


def _agent_accounts(environment: str, agent: str, settings: AgentSettings | None, day: str) -> list[Account]:
    name = f"agent:{environment}:{agent}"
    daily_usd = None if settings is None else settings.daily_usd
    daily_tokens = None if settings is None else settings.daily_tokens
    return [
        Account(name=name, window=day, cap=_nano(daily_usd)),
        Account(name=name, window=day, cap=daily_tokens, unit="tokens"),
    ]


def as_set(settings: AgentSettings, snapshot: Snapshot, environment: str, agent: str) -> AgentSettings:
    """The agent's settings with the daily budgets that are set in place of its file's."""
    set_here = {}
    for name in ("daily_usd", "daily_tokens"):
        for one in reversed(snapshot.all(f"limit.{name}")):  # the narrowest last: it holds
            if one.scope.agent == agent and one.scope.environment in ("", environment):
                set_here[name] = one.value
    return msgspec.structs.replace(settings, **set_here) if set_here else settings


def estimate_tokens(request_bytes: int, max_output_tokens: int, n: int = 1) -> int:
    """What to hold against a token budget: four bytes a token for the input, and all the output allowed.

    An estimate, not a bound as for money: a bound of one token a byte would turn small agents away far below their
    limit. The last call of a run may pass the limit by what was under-estimated; the true count is settled.
    """
    return request_bytes // 4 + max_output_tokens * n


def _nano(usd: float | None) -> Nano | None:
    return None if usd is None else to_nano(usd)
