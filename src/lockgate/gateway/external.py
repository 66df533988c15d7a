"""Money held for what is no model call: priced tools, and APIs that bill by the request.

    POST /v1/holds          {"what": "serpapi", "usd": 0.01}   or {"tool": "web_search"}, priced in prices.yaml
    POST /v1/holds/settle   {"id": "…", "usd": 0.004}          what it did cost; without "usd", all that was held
    POST /v1/holds/release  {"id": "…"}                        it was never sent

Held under the caller's key or run token, on every budget that a model call of the caller's would be held on. A hold is
its caller's: it outlives this worker, and can be ended at any other. What is never settled is charged in full after an
hour. No more is settled than was held, so that no cap is passed.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from lockgate.errors import Conflict, InputError
from lockgate.gateway.access import check_tools
from lockgate.gateway.calls.call import lease_and_hold
from lockgate.gateway.calls.meter import Budgets
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols.fields import UNREADABLE
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Hold, LeaseNeeded
from lockgate.limits.prices import TOOLS, Prices
from lockgate.money import Nano, to_nano, to_usd
from lockgate.telemetry.context import new_span_id
from lockgate.telemetry.model import CLIENT, OK, Span

MAX_BODY = 4096
MAX_USD = 1e6

_T = TypeVar("_T")


class _Ask(msgspec.Struct, forbid_unknown_fields=True):
    what: str = ""
    usd: float | None = None
    tool: str | None = None


class _End(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    usd: float | None = None


class _Held(msgspec.Struct, array_like=True):
    """What an id says: everything that is needed to end the hold, in whichever worker."""

    slot: int
    generation: int
    amount: Nano
    what: str
    owner: str
    span_id: bytes
    began_ns: int
    trace_id: bytes
    attributes: dict[str, Any]


class External:
    """The three handlers. ``identify`` recognises the caller; ``emit`` takes a span."""

    def __init__(
        self,
        *,
        identify: Callable[[Exchange], Awaitable[Identity]],
        meter: Budgets,
        holds: HoldTable,
        prices: Prices,
        secret: bytes,
        emit: Callable[[Span], None],
    ) -> None:
        self._identify = identify
        self._meter = meter
        self._holds = holds
        self._prices = prices
        self._secret = secret
        self._emit = emit

    def routes(self) -> dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]]:
        """The paths, and who serves them."""
        return {
            ("POST", "/v1/holds"): self.hold,
            ("POST", "/v1/holds/settle"): self.settle,
            ("POST", "/v1/holds/release"): self.release,
        }

    async def hold(self, exchange: Exchange) -> None:
        identity = await self._identify(exchange)
        asked = _decode(await exchange.body(MAX_BODY), _Ask)
        what = asked.tool or asked.what
        if not 0 < len(what) <= 128 or not what.isprintable():
            raise InputError(f"'what' is {what[:80]!r}", remedy="name the tool or the API that is paid")
        if asked.tool is not None:
            check_tools(identity, [asked.tool])
        amount = _nano(asked.usd) if asked.usd is not None else None
        if amount is None and asked.tool is not None:
            amount = self._prices.price(TOOLS, TOOLS, asked.tool).request
        if amount is None:
            raise InputError("'usd' is missing", remedy="say what it may cost at most, or name a priced 'tool'")
        span_id = new_span_id()
        attributes: dict[str, Any] = {}
        held = await self._reserve(exchange, identity, amount, span_id, attributes)
        self._holds.disown(held)
        token = _Held(
            held.slot, held.generation, amount, what, _owner(identity), span_id, time.time_ns(), exchange.trace_id,
            attributes,
        )  # fmt: skip
        exchange.respond_json(200, {"id": self._sign(token), "held_usd": to_usd(amount)})

    async def settle(self, exchange: Exchange) -> None:
        identity = await self._identify(exchange)
        asked = _decode(await exchange.body(MAX_BODY), _End)
        held = self._verify(asked.id, identity)
        cost = held.amount if asked.usd is None else _nano(asked.usd)
        if cost > held.amount:
            raise InputError(
                f"'usd' is {asked.usd!r}, and {to_usd(held.amount)!r} is held: no more than that can be settled",
                remedy="hold the rest with another POST /v1/holds first, or settle at what is held",
            )
        self._end(held, self._holds.settle(_hold(held), cost))
        self._record(exchange, identity, held, cost)
        exchange.respond_json(200, {"charged_usd": to_usd(cost)})

    async def release(self, exchange: Exchange) -> None:
        identity = await self._identify(exchange)
        held = self._verify(_decode(await exchange.body(MAX_BODY), _End).id, identity)
        self._end(held, self._holds.release(_hold(held)))
        exchange.respond_json(200, {"charged_usd": 0.0})

    async def _reserve(
        self, exchange: Exchange, identity: Identity, amount: Nano, span_id: bytes, attributes: dict[str, Any]
    ) -> Hold:
        def reserve() -> Hold:
            return self._meter.hold_amount(exchange, identity, amount, span_id, attributes)

        try:
            return reserve()
        except LeaseNeeded as needed:
            return await lease_and_hold(self._meter.lease, needed, reserve)

    def _end(self, held: _Held, was_open: bool) -> None:
        if not was_open:
            raise Conflict("the hold is no longer open", remedy="a hold is settled or released once, within an hour")

    def _record(self, exchange: Exchange, identity: Identity, held: _Held, cost: Nano) -> None:
        run = identity.run
        self._emit(
            Span(
                trace_id=bytes.fromhex(run.trace_id) if run else held.trace_id,
                span_id=held.span_id,
                parent_id=None,
                name=f"external {held.what}",
                kind=CLIENT,
                start_ns=held.began_ns,
                end_ns=time.time_ns(),
                status=OK,
                run_id=run.run_id if run else None,
                agent=run.agent if run else held.attributes.get("lockgate.agent"),
                effective_digest=run.effective_digest if run else None,
                cost_nano=cost,
                attributes={
                    **held.attributes,
                    "lockgate.external": held.what,
                    "lockgate.environment": identity.environment,
                    "lockgate.tenant": identity.tenant,
                    "lockgate.key": identity.key_id,
                    "lockgate.request_id": exchange.request_id,
                },
            )
        )

    def _sign(self, held: _Held) -> str:
        body = urlsafe_b64encode(msgspec.msgpack.encode(held)).rstrip(b"=")
        return f"{body.decode()}.{self._signature(body)}"

    def _verify(self, token: str, identity: Identity) -> _Held:
        body, _, signature = token.partition(".")
        wrong = InputError("'id' is no hold of this machine's", remedy="send the id that POST /v1/holds gave")
        if not token.isascii() or not hmac.compare_digest(signature, self._signature(body.encode())):
            raise wrong
        try:
            held = msgspec.msgpack.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=_Held)
        except (msgspec.DecodeError, BadBase64):
            raise wrong from None
        if held.owner != _owner(identity):
            raise InputError("'id' is a hold of somebody else's", remedy="settle it under the key that held it")
        return held

    def _signature(self, body: bytes) -> str:
        return urlsafe_b64encode(hmac.digest(self._secret, b"hold " + body, "sha256")[:18]).decode()


def _hold(held: _Held) -> Hold:
    return Hold(slot=held.slot, generation=held.generation, amount=held.amount)


def _nano(usd: float) -> Nano:
    if not 0 <= usd <= MAX_USD:
        raise InputError(f"'usd' is {usd!r}", remedy=f"send 0 to {MAX_USD:g}")
    return to_nano(round(usd, 12))  # what 0.1 + 0.2 has above 0.3 is no cost


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as wrong:
        raise InputError(f"the body is wrong: {wrong}", remedy='send {"what": "…", "usd": 0.01}') from None


def _owner(identity: Identity) -> str:
    """Who may end a hold: the key that made it; of a run's, the run alone."""
    return identity.key_id if identity.run is None else identity.run.run_id
