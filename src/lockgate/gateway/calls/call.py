"""One model call, as everything along its way sees it; and one attempt at it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import Unavailable
from lockgate.gateway.calls.seams import Meter
from lockgate.gateway.exchange import Ends, Exchange
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols.dialect import Passage
from lockgate.gateway.protocols.model import Outcome, Request
from lockgate.limits.model import Hold, LeaseNeeded
from lockgate.limits.prices import Price
from lockgate.money import Nano
from lockgate.telemetry.context import new_span_id

if TYPE_CHECKING:
    from lockgate.gateway.providers import Target
    from lockgate.gateway.upstreams.pool import Endpoint, Pool

DEFAULT_MAX_TOKENS = 4096
"""Put into a request that names no bound on its output."""
REFERENCE_TOKENS = 50_000
"""Input tokens held for each image, file or sound in a request: its bytes do not bound them, as they may be a URL."""

BELIEVED = 1_000_000_000
"""Tokens of one call. An upstream that tells of more tells nothing: the call is charged at its bound."""
LEASES = 8
"""How often a call asks for more of a shared cap before it is turned away."""


class Call:
    """A call on its way. Seams may change ``request``, ``provider`` and ``model`` before the first attempt, and add to
    ``attributes`` (of its spans) and ``headers`` (of its answer) at any time."""

    __slots__ = (
        "agent", "attempt", "attempts", "attributes", "cost", "ends", "exchange", "headers", "identity", "model",
        "notes", "outcome", "provider", "request", "run", "was_routed",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, identity: Identity, request: Request, provider: str, model: str) -> None:
        self.exchange = exchange
        self.identity = identity
        self.request = request
        self.provider = provider
        self.model = model
        self.run = run = identity.run
        self.agent = run.agent if run is not None else None
        self.attributes: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}  # what seams keep for themselves between their turns
        self.headers = exchange.reply_headers
        self.attempts = 0
        self.attempt: Attempt | None = None
        self.cost: Nano = 0
        self.outcome = Outcome()
        self.ends: Ends | None = None  # when its run is out of time
        self.was_routed = False  # whether ``provider`` and ``model`` are other ones than were asked for
        if run is not None and exchange.trace_id.hex() != run.trace_id:
            exchange.trace_id, exchange.parent_id = bytes.fromhex(run.trace_id), None

    @property
    def effective_digest(self) -> str | None:
        return self.run.effective_digest if self.run is not None else None


class Attempt:
    """One try at one upstream: what is held for it, and what came of it."""

    __slots__ = (
        "call", "cost", "endpoint", "error", "error_type", "hold", "is_hedge", "max_tokens", "meter", "model", "number",
        "outcome", "passage", "pool", "price", "seconds_to_headers", "sent", "settled", "span_id", "started_ns",
        "status", "target",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        meter: Meter,
        target: Target,
        model: str,
        passage: Passage,
        price: Price,
        pool: Pool,
        endpoint: Endpoint,
    ) -> None:
        request = call.request
        call.attempts += 1
        call.attempt = self
        self.call = call
        self.meter = meter
        self.target = target
        self.model = model
        self.passage = passage
        self.price = price
        self.pool = pool
        self.endpoint = endpoint
        self.seconds_to_headers = 0.0
        self.is_hedge = False
        self.number = call.attempts
        self.max_tokens = request.max_tokens or DEFAULT_MAX_TOKENS if request.dialect.has_output else 0
        self.span_id = new_span_id()
        self.started_ns = call.exchange.started_ns if call.attempts == 1 else time.time_ns()
        self.hold: Hold | None = None
        self.sent = False
        self.settled = False
        self.status = 0
        self.cost: Nano = 0
        self.outcome = Outcome()
        self.error_type: str | None = None
        self.error = ""

    def reserve(self) -> Hold:
        """Hold the most that this attempt can cost."""
        request = self.call.request
        extra = request.references * REFERENCE_TOKENS
        price = self.price if request.units == 1 else self._price_of(request.units)
        self.hold = self.meter.hold(self.call, price, request.size, self.max_tokens, request.n, extra)
        return self.hold

    async def lease_and_reserve(self, needed: LeaseNeeded) -> Hold:
        """Hold it, after this machine has leased more of the caps that need it."""
        return await lease_and_hold(self.meter.lease, needed, self.reserve)

    def settle(self) -> None:
        """Charge what it cost: in full when that is unknown, nothing when it was never sent. Works once."""
        if self.hold is None or self.settled:
            return
        self.settled = True
        usage = self.outcome.usage
        if usage is not None and max(usage.total_tokens, self.outcome.units) > BELIEVED:
            usage = self.outcome.usage = None
        if usage is not None:
            price = self.price if self.outcome.units == 1 else self._price_of(self.outcome.units)
            self.cost = price.cost(usage)
            self.meter.settle(self.call, self.hold, self.cost, usage.total_tokens)
        elif self.sent:
            self.cost = self.hold.amount
            self.meter.settle(self.call, self.hold, self.cost, None)
        else:
            self.meter.release(self.call, self.hold)
        self.call.cost += self.cost

    def _price_of(self, units: int) -> Price:
        """The price with what is due by the request counted as often as it is due."""
        if not self.price.request:
            return self.price
        return msgspec.structs.replace(self.price, request=self.price.request * units)


async def lease_and_hold(
    lease: Callable[[LeaseNeeded], Awaitable[None]], needed: LeaseNeeded, hold: Callable[[], Hold]
) -> Hold:
    """What ``hold`` gives, after this machine has leased more of the caps that need it."""
    for _ in range(LEASES):  # others of this machine may be quicker to spend what was leased
        await lease(needed)
        try:
            return hold()
        except LeaseNeeded as again:
            needed = again
    raise Unavailable("too many calls want of this budget at once", remedy="try again")
