"""The model proxy: hold the worst case, send, settle what it cost, and leave a span behind.

Nothing is awaited but the upstream, and its key when that is not at hand. Whatever happens between the hold and the
settlement, including a cancelled call or a bug, ends in exactly one of: charged as measured, given back
(nothing left this machine), or charged in full (what came of it is unknown).
"""

from __future__ import annotations

import time
from typing import Any

from lockgate.clock import Clock
from lockgate.errors import InputError, LimitExceeded, LockgateError, UpstreamError
from lockgate.gateway.access import check_model
from lockgate.gateway.directory import Directory
from lockgate.gateway.exchange import ClientGone, Exchange, Headers
from lockgate.gateway.model import Identity
from lockgate.gateway.providers import Providers, Target
from lockgate.gateway.upstream import Answer, Upstream
from lockgate.gateway.wire import ChatCall, Outcome, StreamTap, forwarded, read_answer, read_models
from lockgate.limits.budgets import accounts_for, estimate_tokens
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Hold
from lockgate.limits.prices import Prices
from lockgate.money import Nano, to_usd
from lockgate.project.secrets.masking import without
from lockgate.results import Usage
from lockgate.telemetry.context import format_traceparent, new_span_id
from lockgate.telemetry.metrics import GenAI
from lockgate.telemetry.model import CLIENT, ERROR, OK, Span
from lockgate.telemetry.writer import SpanWriter

DEFAULT_MAX_TOKENS = 4096
"""Put into a request that names no bound on its output."""
REFERENCE_TOKENS = 50_000
"""Input tokens held for each image, file or sound in a request: its bytes do not bound them, as they may be a URL."""

STREAM_BYTES = 64 * 1024 * 1024
"""Bytes of one stream. The server in front (granian 2.8) takes chunks without waiting for the client to read them, so
this also bounds what a client that does not read can make a worker keep."""

_UNKNOWN_OUTCOME = frozenset((502, 504, *range(520, 528)))
"""Answers of a proxy on the way, not of the provider: it may have served the call, and billed it."""
_PASSED_ON = ("content-type", "retry-after")


class Proxy:
    """Proxies chat completions to the providers of a project."""

    def __init__(
        self,
        *,
        providers: Providers,
        directory: Directory,
        holds: HoldTable,
        prices: Prices,
        spans: SpanWriter,
        upstream: Upstream,
        metrics: GenAI,
        clock: Clock,
    ) -> None:
        self.providers = providers
        self._directory = directory
        self._holds = holds
        self._prices = prices
        self._emit = spans.emit
        self._upstream = upstream
        self._metrics = metrics
        self._clock = clock

    async def chat(self, exchange: Exchange, identity: Identity, call: ChatCall) -> None:
        """Serve one call, or raise before anything was sent to the client."""
        check_model(identity, call.model)
        provider, slash, model = call.model.partition("/")
        if not slash or not model:
            raise InputError(
                f"'model' is {call.model!r}",
                remedy="write provider/name, such as openai/gpt-4o-mini, or agent:name to run an agent",
            )
        agent = identity.run.agent if identity.run else None
        target = await self.providers.target(identity.environment, provider, agent)
        one = _Call(self, exchange, identity, call, target, model)
        try:
            with exchange.watch():
                await one.run()
        except ClientGone:
            one.error_type = "client_gone"
        except LockgateError as error:
            error.message = target.masked(error.message)
            one.error_type, one.error = error.code, error.message
            if isinstance(error, LimitExceeded):  # by its kind: the limit of each run has a name of its own
                self._metrics.refusals.add(1, identity.environment, error.limit.partition(":")[0])
            raise
        finally:
            one.end()

    async def list_models(self, environment: str, provider: str) -> list[str]:
        """What a provider says it serves, as it names it."""
        target = await self.providers.target(environment, provider)
        answer = await self._upstream.send("GET", target.models, headers=target.headers, timeout=5.0)
        try:
            body = await answer.read(1024 * 1024)
        finally:
            answer.close()
        return read_models(body) if answer.status == 200 else []


class _Call:
    """One call on its way: what is held for it, what came of it, and its span."""

    __slots__ = (
        "call",
        "cost",
        "error",
        "error_type",
        "exchange",
        "hold",
        "identity",
        "max_tokens",
        "model",
        "outcome",
        "price",
        "proxy",
        "sent",
        "settled",
        "span_id",
        "status",
        "target",
    )

    def __init__(
        self, proxy: Proxy, exchange: Exchange, identity: Identity, call: ChatCall, target: Target, model: str
    ) -> None:
        self.proxy = proxy
        self.exchange = exchange
        self.identity = identity
        self.call = call
        self.target = target
        self.model = model
        self.max_tokens = call.max_tokens or DEFAULT_MAX_TOKENS
        self.price = proxy._prices.price(target.provider.kind, target.provider.name, model)
        self.span_id = new_span_id()
        self.hold: Hold | None = None
        self.sent = False
        self.settled = False
        self.status = 0
        self.cost: Nano = 0
        self.outcome = Outcome()
        self.error_type: str | None = None
        self.error = ""
        run = identity.run
        if run is not None and exchange.trace_id.hex() != run.trace_id:
            exchange.trace_id, exchange.parent_id = bytes.fromhex(run.trace_id), None

    async def run(self) -> None:
        """Hold, send, answer."""
        proxy, call, target = self.proxy, self.call, self.target
        self._hold()
        body = forwarded(call, self.model, self.max_tokens)
        headers = {
            **target.headers,
            "traceparent": format_traceparent(self.exchange.trace_id, self.span_id),
            "x-request-id": self.exchange.request_id,
        }
        assert self.hold is not None
        proxy._holds.mark_sent(self.hold)
        self.sent = True
        try:
            answer = await proxy._upstream.send(
                "POST", target.chat, headers=headers, body=body, timeout=target.provider.timeout, stream=call.stream
            )
        except UpstreamError as error:
            self.sent = error.sent
            raise
        try:
            self.status = answer.status
            if answer.status != 200:
                await self._pass_error(answer)
            elif call.stream:
                await self._pass_stream(answer)
            else:
                await self._pass_answer(answer)
        finally:
            answer.close()

    def _hold(self) -> None:
        identity, call, proxy = self.identity, self.call, self.proxy
        run, now = identity.run, proxy._clock()
        route = proxy._directory.routes.settings_of(identity.environment, run.agent) if run else None
        accounts = accounts_for(
            environment=identity.environment,
            tenant=identity.tenant,
            agent=run.agent if run else None,
            run=run,
            settings=route.settings if route else None,
            now=now,
        )
        extra = call.references * REFERENCE_TOKENS
        bound = self.price.bound(call.size, self.max_tokens, call.n, extra)
        tokens = estimate_tokens(call.size, self.max_tokens, call.n) + extra
        self.hold = proxy._holds.hold(accounts, bound, now=now, tokens=tokens)

    async def _pass_answer(self, answer: Answer) -> None:
        body = await answer.read()
        self.outcome = read_answer(body)
        self.settle()
        if self.outcome.usage is None:
            self.error_type, self.error = "no_usage", "the answer does not say what was used"
        headers = self._headers(answer)
        headers.append(("x-lockgate-cost-usd", f"{to_usd(self.cost):.9f}"))
        self.exchange.respond(200, headers, body)

    async def _pass_stream(self, answer: Answer) -> None:
        exchange = self.exchange
        tap = StreamTap(hide_usage=not self.call.wants_usage)
        self.outcome = tap.outcome
        transport = exchange.stream(200, self._headers(answer))
        left = STREAM_BYTES
        try:
            async for chunk in answer.chunks():
                left -= len(chunk)
                if left < 0:
                    raise UpstreamError(f"the stream is longer than {STREAM_BYTES} bytes", sent=True)
                if passed := tap.feed(chunk):
                    await exchange.send(transport, passed)
            if rest := tap.finish():
                await exchange.send(transport, rest)
        except UpstreamError as error:  # the status has gone out: the error is the stream's last event
            error.message = self.target.masked(error.message)
            self.error_type, self.error = error.code, error.message
            await exchange.send(transport, exchange.error_event(error))

    async def _pass_error(self, answer: Answer) -> None:
        """The provider said no. Its words go to the client, but not the key, nor what would be taken for ours."""
        body = without(await answer.read(1024 * 1024), self.target.key)
        self.error_type, self.error = str(answer.status), body[:500].decode("utf-8", "replace")
        self.sent = answer.status in _UNKNOWN_OUTCOME
        if answer.status in (401, 403):
            raise UpstreamError(
                f"provider {self.target.provider.name!r} refused Lockgate's credentials",
                sent=False,
                upstream_status=answer.status,
                remedy="check the provider's api_key in lockgate.yaml",
            )
        if answer.status < 400:
            self.sent = True
            raise UpstreamError(f"provider {self.target.provider.name!r} answered {answer.status}", sent=True)
        self.exchange.respond(answer.status, self._headers(answer), body)

    def _headers(self, answer: Answer) -> Headers:
        return [(name, value) for name in _PASSED_ON if (value := answer.header(name)) is not None]

    def settle(self) -> None:
        """Charge what it cost: in full when that is unknown, nothing when it was never sent. Works once."""
        if self.hold is None or self.settled:
            return
        self.settled = True
        holds, usage = self.proxy._holds, self.outcome.usage
        if usage is not None:
            self.cost = self.price.cost(usage)
            holds.settle(self.hold, self.cost, tokens=usage.total_tokens)
        elif self.sent:
            self.cost = self.hold.amount
            holds.settle(self.hold, self.cost)
        else:
            holds.release(self.hold)

    def end(self) -> None:
        """Settle what is still open, and write the call down."""
        self.settle()
        metrics, end_ns = self.proxy._metrics, time.time_ns()
        run, provider = self.identity.run, self.target.provider
        usage = self.outcome.usage or Usage()
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider.name,
            "gen_ai.request.model": self.model,
            "gen_ai.request.max_tokens": self.max_tokens,
            "server.address": self.target.chat.host or "",
            "lockgate.environment": self.identity.environment,
            "lockgate.tenant": self.identity.tenant,
            "lockgate.key": self.identity.key_id,
            "lockgate.request_id": self.exchange.request_id,
        }
        outcome = self.outcome
        if outcome.model is not None:
            attributes["gen_ai.response.model"] = outcome.model
            attributes["gen_ai.response.id"] = outcome.id
            attributes["gen_ai.response.finish_reasons"] = outcome.finish_reasons
        if outcome.fingerprint is not None:
            attributes["openai.response.system_fingerprint"] = outcome.fingerprint
        if self.status:
            attributes["http.response.status_code"] = self.status
        if self.call.stream:
            attributes["gen_ai.output.stream"] = True
        if self.error_type is not None:
            attributes["error.type"] = self.error_type
        if outcome.usage is None and self.cost:
            attributes["lockgate.cost_is_bound"] = True
        self.proxy._emit(
            Span(
                trace_id=self.exchange.trace_id,
                span_id=self.span_id,
                parent_id=self.exchange.parent_id,
                name=f"chat {self.model}",
                kind=CLIENT,
                start_ns=self.exchange.started_ns,
                end_ns=end_ns,
                status=OK if self.error_type is None else ERROR,
                status_message=self.error,
                run_id=run.run_id if run else None,
                agent=run.agent if run else None,
                effective_digest=run.effective_digest if run else None,
                model=self.call.model,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost_nano=self.cost,
                attributes=attributes,
            )
        )
        labels = ("chat", provider.name, self.model)
        metrics.operation_seconds.observe((end_ns - self.exchange.started_ns) / 1e9, *labels, self.error_type or "")
        if outcome.usage is not None:
            metrics.tokens.observe(usage.input_tokens, *labels, "input")
            metrics.tokens.observe(usage.output_tokens, *labels, "output")
        if self.cost:
            metrics.cost_usd.add(
                to_usd(self.cost), self.identity.environment, run.agent if run else "", self.call.model
            )
