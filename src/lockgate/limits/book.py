"""The limits of one environment, ready to be looked up for each call. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from lockgate.limits.model import Account, Rate, Unit
from lockgate.limits.windows import QUARTER, Period, window_of
from lockgate.money import to_nano
from lockgate.project.limits import Allowance, LimitSpec

KeyLimits = tuple[tuple[str, float], ...]
"""An API key's own limits, by the names of :class:`~lockgate.project.limits.Allowance`, in order."""

_BUDGETS: tuple[tuple[str, Period | None, Unit], ...] = (
    ("usd", None, "usd"),
    ("tokens", None, "tokens"),
    ("calls", None, "calls"),
    ("daily_usd", "day", "usd"),
    ("daily_tokens", "day", "tokens"),
    ("monthly_usd", "month", "usd"),
    ("monthly_tokens", "month", "tokens"),
    ("concurrent", None, "concurrent"),
)
_LONGEST = 96  # characters of a caller's own name for something; what is longer is known by its digest


class Caller(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Whom a call is for: what its limits are looked up by."""

    tenant: str
    key: str = ""  # the id of an API key, or of the one that started the run
    agent: str | None = None
    model: str = ""  # provider/name
    session: str | None = None
    task: str | None = None
    labels: tuple[str, ...] = ()
    key_limits: KeyLimits = ()


class Book:
    """One environment's limits. ``shared``: the caps hold over several machines that lease slices of them, and a rate
    is divided between ``machines`` of them."""

    def __init__(self, environment: str, spec: LimitSpec, *, shared: bool = False, machines: int = 1) -> None:
        self.environment = environment
        self.zone = spec.time_zone or "UTC"
        self.runs = spec.runs
        self.shared = shared
        self._spec = spec
        self._machines = machines
        self._found = lru_cache(maxsize=1024)(self._look_up)

    def limits(self, caller: Caller, now: float) -> tuple[tuple[Account, ...], tuple[Rate, ...]]:
        """The accounts and rates that limit the caller's calls now, each name and window once."""
        return self._found(caller, int(now // QUARTER))

    def day(self, now: float) -> str:
        return window_of(now, "day", self.zone)

    def counts(self, account: str, window: str) -> bool:
        """Whether calls of now count in USD on this account in windows of that sort: a limit that was taken out, and
        another time zone, leave accounts behind on which nothing is counted any more."""
        name, _, zone = window.partition(" ")
        kind, _, rest = account.partition(":")
        is_day = len(name) == len("2026-11-21")
        if (zone or "UTC") != self.zone:
            return False
        if kind == "key" or (is_day and kind in ("tenant", "agent")):
            return True  # a key's own limits stay; a tenant's and an agent's days are counted without one
        spec = self._spec
        if kind == "project":
            allowance = spec.project
        else:
            named = {"tenant": spec.tenants, "agent": spec.agents, "model": spec.models, "task": spec.tasks,
                     "label": spec.labels}.get(kind, {})  # fmt: skip
            allowance = of(named, rest.partition(":")[2])
        return allowance is not None and (allowance.daily_usd if is_day else allowance.monthly_usd) is not None

    def _look_up(self, caller: Caller, quarter: int) -> tuple[tuple[Account, ...], tuple[Rate, ...]]:
        now = float(quarter * QUARTER)
        accounts: dict[tuple[str, str, str], Account] = {}
        rates: list[Rate] = []
        for name, member, allowance in self._scopes(caller):
            for account in self._accounts(name, allowance, now):
                accounts[account.key] = account
            rates += self._rates(name, member, allowance)
        return tuple(accounts.values()), tuple(rates)

    def _scopes(self, caller: Caller) -> Iterator[tuple[str, str, Allowance]]:
        """(account's name, who shares it, what it may use)"""
        spec, environment = self._spec, self.environment
        wanted = [
            ("key", spec.keys, caller.key, caller.key, ""),
            ("tenant", spec.tenants, caller.tenant, caller.tenant, caller.key),
            ("agent", spec.agents, caller.agent, caller.agent, caller.tenant),
            ("model", spec.models, caller.model, caller.model, caller.tenant),
            ("session", spec.sessions, caller.session, f"{caller.tenant}/{known(caller.session or '')}", ""),
            ("task", spec.tasks, caller.task, known(caller.task or ""), caller.tenant),
            *(("label", spec.labels, label, known(label), caller.tenant) for label in caller.labels),
        ]
        if caller.key_limits and caller.key:
            yield f"key:{environment}:{caller.key}", "", Allowance().model_copy(update=dict(caller.key_limits))
        for kind, named, name, shown, member in wanted:
            if not name or (kind == "key" and caller.key_limits):
                continue
            allowance = of(named, name)
            if allowance is not None:
                yield f"{kind}:{environment}:{shown}", member, allowance
        if spec.project is not None:
            yield f"project:{environment}", caller.tenant, spec.project

    def _accounts(self, name: str, allowance: Allowance, now: float) -> Iterator[Account]:
        for setting, period, unit in _BUDGETS:
            value = getattr(allowance, setting)
            if value is None:
                continue
            cap = to_nano(value) if unit == "usd" else int(value)
            if unit == "concurrent" and cap:
                cap = max(1, cap // self._machines)
            window = window_of(now, period, self.zone) if period else ""
            leased = self.shared and unit != "concurrent"
            yield Account(name=name, window=window, cap=cap, unit=unit, leased=leased)

    def _rates(self, name: str, member: str, allowance: Allowance) -> Iterator[Rate]:
        if allowance.requests_per_minute is not None:
            yield Rate(name=name, per_minute=allowance.requests_per_minute / self._machines, member=member)
        if allowance.tokens_per_minute is not None:
            yield Rate(name=name, per_minute=allowance.tokens_per_minute / self._machines, member=member, unit="tokens")

    def every_account(self, now: float) -> Iterator[Account]:
        """The accounts of what is limited by name, whether or not anything was spent."""
        scopes = {"tenant": "tenants", "agent": "agents", "key": "keys", "model": "models", "task": "tasks",
                  "label": "labels"}  # fmt: skip
        for kind, scope in scopes.items():
            for name, allowance in getattr(self._spec, scope).items():
                if name != "*":
                    yield from self._accounts(f"{kind}:{self.environment}:{name}", allowance, now)
        if self._spec.project is not None:
            yield from self._accounts(f"project:{self.environment}", self._spec.project, now)


def of(named: Mapping[str, Allowance], name: str) -> Allowance | None:
    """The allowance of this name: its own, else what holds for each without one."""
    own = named.get(name)
    return named.get("*") if own is None else own


def known(name: str) -> str:
    """A name from outside as part of an account's: as it is when it is short, else its digest."""
    if len(name) <= _LONGEST and name.isprintable():
        return name
    return "~" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
