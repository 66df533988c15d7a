"""The model proxy: hold the worst case, send, settle what it cost, and leave a span behind.

Nothing is awaited but the upstream, its key when that is not at hand, and what plugs in at the seams. Whatever happens
between a hold and its settlement, including a cancelled call or a bug, ends in exactly one of: charged as measured,
given back (nothing left this machine), or charged in full (what came of it is unknown).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lockgate.errors import LimitExceeded, LockgateError, Refused, UpstreamError
from lockgate.gateway.access import check_model
from lockgate.gateway.calls.attempts import Attempts, FallbacksOf, named
from lockgate.gateway.calls.call import Call
from lockgate.gateway.calls.passing import Declined, Passing
from lockgate.gateway.calls.record import Recorder
from lockgate.gateway.calls.seams import Cache, Guards, Meter, Router
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.http_request import ClientGone
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols.chat import read_models
from lockgate.gateway.protocols.fields import UNREADABLE
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.providers import Providers
from lockgate.gateway.upstream import Upstream
from lockgate.limits.prices import Prices
from lockgate.money import to_usd
from lockgate.telemetry.metrics import GenAI
from lockgate.telemetry.writer import SpanWriter


class Proxy:
    """Proxies model calls to the providers of a project. One per worker."""

    def __init__(
        self,
        *,
        providers: Providers,
        prices: Prices,
        spans: SpanWriter,
        upstream: Upstream,
        metrics: GenAI,
        meter: Meter,
        guards: Guards | None = None,
        cache: Cache | None = None,
        router: Router | None = None,
        permit: Callable[[Identity, str], None] = lambda identity, model: None,
        fallbacks_of: FallbacksOf = lambda run: {},
        machine: str = "",
    ) -> None:
        """``permit`` raises :class:`~lockgate.errors.Killed` for a model, or a caller, that is switched off;
        ``machine`` is this one's name where several share a ledger."""
        self.providers = providers
        self._recorder = Recorder(spans.emit, metrics, machine)
        self._upstream = upstream
        self._metrics = metrics
        self._meter = meter
        self._guards = guards
        self._cache = cache
        self._router = router
        self._permit = permit
        self._passing = Passing(upstream, metrics, guards)
        self._attempts = Attempts(
            providers=providers,
            prices=prices,
            passing=self._passing,
            meter=meter,
            recorder=self._recorder,
            permit=permit,
            fallbacks_of=fallbacks_of,
        )
        self._attempts.router = router

    async def serve(self, exchange: Exchange, identity: Identity, request: Request) -> None:
        """Serve one call, or raise before anything was sent to the client."""
        check_model(identity, request.model)
        self._permit(identity, request.model)
        call = Call(exchange, identity, request, *named(request.model))
        admitted = False
        try:
            self._meter.admit(call)
            admitted = True
            with exchange.watch(call.ends):
                await self._serve(call)
        except ClientGone:
            if call.attempt is None:
                self._recorder.unasked(call, "client_gone")
        except LockgateError as error:
            if call.attempt is None:
                self._recorder.unasked(call, error.code, error.message)
            if isinstance(error, LimitExceeded):  # by its kind: the limit of each run has a name of its own
                self._metrics.refusals.add(1, identity.environment, error.limit.partition(":")[0])
            if call.cost:  # of what was asked before it came to this
                call.headers.append(("x-lockgate-cost-usd", f"{to_usd(call.cost):.9f}"))
            raise
        finally:
            if admitted:
                self._meter.leave(call)
            call.attempt = None  # each knows the other: else both, and the request, wait for the garbage collector

    async def ask(self, call: Call, model: str, request: Request) -> dict[str, Any]:
        """A further model call on behalf of ``call`` (a classifier's, an embedder's): held, settled and traced alone.

        Raises what a call raises; UpstreamError when the answer is not what it should be.
        """
        provider, name = named(model)
        other = Call(call.exchange, call.identity, request, provider, name)
        other.was_routed = True
        attempt = await self._attempts.begin(other, (provider, name))
        try:
            body = await self._passing.fetch(attempt)
        except Declined as declined:
            attempt.error_type, attempt.error = str(declined.status), declined.text
            raise declined.error(attempt) from None
        except LockgateError as error:
            error.message = attempt.target.masked(error.message)
            attempt.error_type, attempt.error = error.code, error.message
            raise
        finally:
            self._attempts.end(attempt)
            call.cost += other.cost
            other.attempt = None  # as in serve()
        try:
            answer = msgspec.json.decode(body)
        except UNREADABLE:
            answer = None
        if not isinstance(answer, dict):
            raise UpstreamError(f"the model {model!r} answered with no JSON object", sent=True)
        return answer

    def may_call(self, identity: Identity, model: str) -> bool:
        """Whether a call of this model would not be refused for who calls."""
        try:
            check_model(identity, model)
            self._permit(identity, model)
        except Refused:
            return False
        return True

    async def list_models(self, environment: str, provider: str) -> list[str]:
        """What a provider says it serves, as it names it."""
        target = await self.providers.target(environment, provider)
        answer = await self._upstream.send("GET", target.url("/models"), headers=target.headers, timeout=5.0)
        try:
            body = await answer.read(1024 * 1024)
        finally:
            answer.close()
        return read_models(body) if answer.status == 200 else []

    # --- the call ---------------------------------------------------------------------------------------------

    async def _serve(self, call: Call) -> None:
        if self._guards is not None:
            await self._guards.before(call)
        cache = self._cache
        if cache is None or not cache.wants(call):
            await self._route(call)
            await self._attempts.answer(call)
            return
        try:
            hit = await cache.lookup(call)
            if hit is None:
                await self._route(call)
                kept = await self._attempts.answer(call, keep=True)
                if kept is not None:
                    await cache.store(call, *kept)
                return
        finally:
            cache.leave(call)
        call.attributes["lockgate.cache.hit"] = hit.kind
        call.attributes["lockgate.cache.saved_usd"] = to_usd(hit.saved_nano)
        if hit.similarity is not None:
            call.attributes["lockgate.cache.similarity"] = hit.similarity
        headers = [("content-type", hit.content_type), ("x-lockgate-cache", hit.kind)]
        headers.append(("x-lockgate-cost-usd", f"{to_usd(call.cost):.9f}"))  # what looking for it cost, if anything
        call.exchange.respond(200, headers, hit.body)
        self._recorder.unasked(call, None)

    async def _route(self, call: Call) -> None:
        """Choose the model that is asked, now that one has to be: choosing may cost a question to another."""
        if self._router is not None:
            asked = call.provider, call.model
            await self._router.route(call)
            call.was_routed = (call.provider, call.model) != asked
