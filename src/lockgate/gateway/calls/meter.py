"""Who pays for a call, and how often they may: every budget and rate that applies, held at once.

Beside what the caller's identity says, a caller names by headers what else a call counts for (see ``origins.py``) and,
where there is no run token, by ``x-lockgate-run``, ``x-lockgate-agent``, ``x-lockgate-depth`` and
``x-lockgate-iteration``, which run it belongs to.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from lockgate.clock import Clock
from lockgate.errors import InputError, LimitExceeded
from lockgate.gateway import switches
from lockgate.gateway.access import check_agent, check_tools
from lockgate.gateway.calls.call import Call
from lockgate.gateway.directory import Directory
from lockgate.gateway.exchange import Ends, Exchange
from lockgate.gateway.model import Identity
from lockgate.gateway.origins import name_of, origin_of, says_nothing
from lockgate.gateway.routes import Routes
from lockgate.limits import actions
from lockgate.limits.book import Book, Caller
from lockgate.limits.budgets import RunLimits, accounts_for, estimate_tokens, run_accounts
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.leases import Leases
from lockgate.limits.model import Account, Hold, LeaseNeeded, Rate, Standing
from lockgate.limits.prices import Price
from lockgate.limits.refusals import SAME
from lockgate.limits.windows import QUARTER
from lockgate.money import Nano, to_nano
from lockgate.project.limits import RunAllowance
from lockgate.settings.model import Snapshot

PAYER = "payer"
"""Where a call's notes keep what :meth:`Budgets.admit` found."""

_KNOWN = 1024  # callers of which that is kept
_NOTHING_SAID = RunAllowance()
_number_of = struct.Struct(">q").unpack


class HeaderRun(NamedTuple):
    """A run that a caller named by a header: no token says what it may use, ``limits.runs`` does."""

    run_id: str
    max_usd_nano: Nano | None
    max_llm_calls: int
    max_tokens: int


class Payer(NamedTuple):
    """What a call counts for, found once when it is admitted."""

    caller: Caller
    run: RunLimits | None
    own: Sequence[Account]  # the run's
    same: Account | None  # counts the run's calls that are like this one, where loops are looked for


class _Known(NamedTuple):
    """What a caller's calls count on, and what that was found from: for as long as none of it is another."""

    book: Book
    settings: Snapshot
    routes: Routes
    quarter: float  # of an hour: no window of time begins inside of one
    accounts: Sequence[Account]
    rates: Sequence[Rate]


class Budgets:
    """The meter of a gateway worker. ``book`` gives an environment's limits as they are in force now."""

    def __init__(
        self,
        *,
        directory: Directory,
        holds: HoldTable,
        clock: Clock,
        book: Callable[[str], Book] | None = None,
        leases: Leases | None = None,
    ) -> None:
        self._directory = directory
        self._holds = holds
        self._clock = clock
        self._book = book or _no_limits
        self._leases = leases
        self._known: dict[tuple[str, Caller], _Known] = {}
        self._silent: dict[tuple[Identity, str], Payer] = {}  # by model, of calls whose headers say nothing
        self.mark_sent = holds.mark_sent

    def admit(self, call: Call) -> None:
        """Find out what the call counts for, and end a run that has done too much. What it may spend, and how often,
        is decided when its first attempt holds."""
        identity = call.identity
        if (identity.tools if identity.run is None else identity.run.tools) is not None:
            check_tools(identity, call.request.offered())
        call.notes[PAYER] = payer = self._payer(call)
        if payer.run is not None:
            self._check_run(call, payer.run)

    def hold(self, call: Call, price: Price, size: int, max_tokens: int, n: int, extra: int) -> Hold:
        payer: Payer | None = call.notes.get(PAYER)
        is_first = payer is not None and call.attempts <= 1  # in rates a call counts once, however often it is tried
        if payer is None:
            payer = self._payer(call)
        identity, now = call.identity, self._clock()
        attempt = call.attempt
        caller = payer.caller
        if attempt is not None:
            model = f"{attempt.target.provider.name}/{attempt.model}"
            if model != caller.model:
                caller = msgspec.structs.replace(caller, model=model)
        accounts, rates = self._accounts(identity, payer, caller, now)
        if not is_first:
            rates = ()
        if payer.same is not None and is_first:
            accounts = [*accounts, payer.same]
        unbounded = call.request.unbounded
        if unbounded is not None and any(account.unit == "usd" and account.cap is not None for account in accounts):
            raise InputError(
                f"what {unbounded!r} costs cannot be told beforehand, and a budget applies to this call",
                remedy=f"leave {unbounded!r} out",
            )
        bound = price.bound(size, max_tokens, n, extra)
        tokens = estimate_tokens(size, max_tokens, n) + extra
        tag = 0 if attempt is None else _tag(attempt.span_id)
        try:
            hold = self._holds.hold(accounts, bound, now=now, tokens=tokens, rates=rates, tag=tag)
        except LimitExceeded as refused:
            if rates:
                call.headers += refused_headers(refused, rates)
            raise
        if hold.standings:
            call.headers += standing_headers(hold.standings)
        return hold

    def hold_amount(
        self, exchange: Exchange, identity: Identity, amount: Nano, span_id: bytes, attributes: dict[str, Any]
    ) -> Hold:
        """Hold an amount that is no model call's, on every budget in USD that the caller's calls count for; what else
        it counts for is added to ``attributes``."""
        payer, now = self._payer_of(exchange, identity, "", attributes, {}), self._clock()
        accounts = [one for one in self._accounts(identity, payer, payer.caller, now)[0] if one.unit == "usd"]
        return self._holds.hold(accounts, amount, now=now, tag=_tag(span_id))

    def limits_of(
        self, exchange: Exchange, identity: Identity, model: str, attributes: dict[str, Any]
    ) -> tuple[Sequence[Account], Sequence[Rate]]:
        """Every account and rate that a call of this caller's to the model (``provider/name``) counts on; what else it
        counts for is added to ``attributes``."""
        payer = self._payer_of(exchange, identity, model, attributes, {})
        attributes["lockgate.agent"] = payer.caller.agent
        return self._accounts(identity, payer, payer.caller, self._clock())

    async def lease(self, needed: LeaseNeeded) -> None:
        """Ask the store for a larger slice of the caps that :meth:`hold` found too little leased of."""
        assert self._leases is not None
        await asyncio.to_thread(self._leases.grow, needed.short)

    def settle(self, call: Call, hold: Hold, actual: Nano, tokens: int | None) -> None:
        self._holds.settle(hold, actual, tokens=tokens)

    def release(self, call: Call, hold: Hold) -> None:
        self._holds.release(hold)

    def leave(self, call: Call) -> None:
        """Nothing was taken by :meth:`admit`: calls under way are counted by what they hold."""

    # --- who pays ---------------------------------------------------------------------------------------------

    def _accounts(
        self, identity: Identity, payer: Payer, caller: Caller, now: float
    ) -> tuple[Sequence[Account], Sequence[Rate]]:
        environment = identity.environment
        book, directory = self._book(environment), self._directory
        known = self._known.get((environment, caller))
        if (
            known is None
            or known.book is not book
            or known.settings is not directory.settings
            or known.routes is not directory.routes
            or known.quarter != now // QUARTER
        ):
            known = self._look_up(environment, caller, book, now)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[environment, caller] = known
        if payer.run is None:
            return known.accounts, known.rates
        return [*payer.own, *known.accounts], known.rates

    def _look_up(self, environment: str, caller: Caller, book: Book, now: float) -> _Known:
        settings, routes, agent = self._directory.settings, self._directory.routes, caller.agent
        limits, rates = book.limits(caller, now)
        route = routes.settings_of(environment, agent) if agent else None
        accounts = accounts_for(
            environment=environment,
            tenant=caller.tenant,
            agent=agent,
            settings=route.settings if route else None,
            now=now,
            day=book.day(now),
            limits=limits,
            leased=book.shared,
        )
        return _Known(book, settings, routes, now // QUARTER, accounts, rates)

    def _payer(self, call: Call) -> Payer:
        model = f"{call.provider}/{call.model}"
        payer = self._payer_of(call.exchange, call.identity, model, call.attributes, call.request.fields)
        call.agent = payer.caller.agent
        return payer

    def _payer_of(
        self,
        exchange: Exchange,
        identity: Identity,
        model: str,
        attributes: dict[str, Any],
        fields: Mapping[str, msgspec.Raw],
    ) -> Payer:
        is_silent = says_nothing(exchange.headers)
        payer = self._silent.get((identity, model)) if is_silent else None
        if payer is None:
            payer = self._find_payer(exchange, identity, model, attributes, fields)
            if is_silent:
                if len(self._silent) >= _KNOWN:
                    self._silent.clear()
                self._silent[identity, model] = payer
        caller = payer.caller
        if caller.session is not None:
            attributes["session.id"] = caller.session
        if caller.task is not None:
            attributes["lockgate.task"] = caller.task
        if caller.labels:
            attributes["lockgate.labels"] = list(caller.labels)
        return payer

    def _find_payer(
        self,
        exchange: Exchange,
        identity: Identity,
        model: str,
        attributes: dict[str, Any],
        fields: Mapping[str, msgspec.Raw],
    ) -> Payer:
        headers = exchange.headers
        origin = origin_of(headers, identity)
        run: RunLimits | None = identity.run
        agent = None if identity.run is None else identity.run.agent
        same = None
        if identity.run is None:
            named = headers.get("x-lockgate-agent")
            if named is not None:
                agent = name_of("x-lockgate-agent", named) or ""
                check_agent(identity, agent)
                switches.check(self._directory.settings, identity, agent=agent)
            own = headers.get("x-lockgate-run")
            if own is not None:
                book = self._book(identity.environment)
                allowed = book.runs or _NOTHING_SAID
                usd = allowed.max_usd_per_run
                run_id = f"{identity.environment}/{identity.tenant}/{name_of('x-lockgate-run', own)}"
                run = HeaderRun(
                    run_id, None if usd is None else to_nano(usd), allowed.max_llm_calls, allowed.max_tokens_per_run
                )
                if book.runs is not None and fields:
                    like = hashlib.blake2b(digest_size=8)
                    for field in sorted(fields):
                        like.update(field.encode() + bytes(fields[field]))
                    window = SAME + like.hexdigest()
                    same = Account(name=f"run:{run_id}", window=window, cap=allowed.max_repeats, unit="calls")
                attributes["lockgate.run.named"] = run_id
        caller = Caller(
            tenant=identity.tenant,
            key=origin.key,
            agent=agent,
            model=model,
            session=origin.session,
            task=origin.task,
            labels=origin.labels,
            key_limits=origin.key_limits,
        )
        return Payer(caller, run, () if run is None else run_accounts(run), same)

    def _check_run(self, call: Call, run: RunLimits) -> None:
        fields, headers = call.request.fields, call.exchange.headers
        name = "messages" if "messages" in fields else "input"
        raw = fields.get(name)
        made: list[actions.ToolCall] = []
        if raw is not None and actions.may_hold_calls(bytes(raw)):
            made = actions.tool_calls(call.request.decoded(name))
        iteration, depth = _number(headers, "x-lockgate-iteration"), _number(headers, "x-lockgate-depth")
        token = call.run
        if token is not None:
            repeats = (self._book(token.environment).runs or _NOTHING_SAID).max_repeats
            budget = actions.ActionBudget(
                token.run_id, token.max_tool_calls, token.max_iterations, float("inf"), token.max_depth, repeats
            )
            seconds, depth = 0.0, token.depth  # a token ends with the run's time
        else:
            allowed = self._book(call.identity.environment).runs or _NOTHING_SAID
            budget = actions.ActionBudget(
                run.run_id,
                allowed.max_tool_calls,
                allowed.max_iterations,
                allowed.max_seconds,
                allowed.max_depth,
                allowed.max_repeats,
            )
            now = self._clock()
            seconds = now - self._holds.began((f"run:{run.run_id}", "", "calls"), now)
        actions.check(budget, made, seconds=seconds, iteration=iteration, depth=depth)
        if token is None:
            call.ends = Ends(monotonic() + budget.max_seconds - seconds, actions.out_of_time(budget))


def _tag(span_id: bytes) -> int:
    return int(_number_of(span_id)[0])


def _no_limits(environment: str) -> Book:
    from lockgate.project.limits import LimitSpec

    return Book(environment, LimitSpec())


def _number(headers: object, header: str) -> int | None:
    value = headers.get(header)  # type: ignore[attr-defined]
    if value is None:
        return None
    if not value.isdecimal() or len(value) > 9:
        raise InputError(f"the header {header!r} is {value[:80]!r}", remedy="send a whole number")
    return int(value)


def standing_headers(standings: Sequence[Standing]) -> list[tuple[str, str]]:
    """``x-ratelimit-*`` of the tightest rate of each unit."""
    if len(standings) == 1:
        (one,) = standings
        return _three(one.unit, one.limit, one.remaining, one.reset)
    found: dict[str, Standing] = {}
    for one in standings:
        other = found.get(one.unit)
        if other is None or one.remaining / one.limit < other.remaining / other.limit:
            found[one.unit] = one
    return [header for one in found.values() for header in _three(one.unit, one.limit, one.remaining, one.reset)]


def refused_headers(refused: LimitExceeded, rates: Sequence[Rate]) -> list[tuple[str, str]]:
    """``x-ratelimit-*`` of the rate that refused the call, if one did."""
    if refused.retry_after is None:
        return []
    hit = [rate for rate in rates if (rate.name, rate.unit) == (refused.limit, refused.unit)]
    return [header for one in hit for header in _three(one.unit, one.per_minute, 0, refused.retry_after)]


def _three(unit: str, limit: float, remaining: int, reset: float) -> list[tuple[str, str]]:
    stated, remaining_name, reset_name = _fixed(unit, limit)
    return [stated, (remaining_name, str(remaining if remaining > 0 else 0)), (reset_name, f"{reset:.3f}s")]


@lru_cache(maxsize=1024)
def _fixed(unit: str, limit: float) -> tuple[tuple[str, str], str, str]:
    """What is the same each time: the header of the limit itself, and the names of the other two."""
    return (f"x-ratelimit-limit-{unit}", f"{limit:g}"), f"x-ratelimit-remaining-{unit}", f"x-ratelimit-reset-{unit}"
