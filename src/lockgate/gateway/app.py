"""The data plane's front door: which path is whose, and every error in the shape its client knows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from lockgate import __version__
from lockgate.errors import (
    ApprovalPending,
    InputError,
    LimitExceeded,
    LockgateError,
    NotFound,
    RunFailed,
    Unavailable,
)
from lockgate.gateway.access import Access
from lockgate.gateway.agent_answers import voice_of
from lockgate.gateway.agents import Agents, Asked, Ran
from lockgate.gateway.batches.service import Batches
from lockgate.gateway.calls.service import Proxy
from lockgate.gateway.control_proxy import ControlProxy
from lockgate.gateway.directory import Directory
from lockgate.gateway.exchange import Exchange, Rooms
from lockgate.gateway.headers import Headers
from lockgate.gateway.http_request import ClientGone, HttpRequest
from lockgate.gateway.keys import LEASE
from lockgate.gateway.model import Identity, RunBody
from lockgate.gateway.origins import cache_wish, origin_of
from lockgate.gateway.protocols.dialect import Dialect
from lockgate.gateway.protocols.fields import UNREADABLE
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.protocols.passages import DIALECTS
from lockgate.gateway.shared_metrics import SharedMetrics
from lockgate.gateway.watchman import Watchman
from lockgate.money import to_usd
from lockgate.telemetry import logs, otlp
from lockgate.telemetry.metrics import CONTENT_TYPE
from lockgate.telemetry.model import Span

log = logging.getLogger(__name__)

AGENT = "agent:"
MAX_KEY = 256
"""Characters of a session or a user: they are stored with every run."""
_LIMITS = frozenset(
    ("llm_calls_exceeded", "tool_calls_exceeded", "tokens_exceeded", "time_exceeded", "cost_exceeded",
     "iterations_exceeded", "loop_detected", "depth_exceeded", "budget_exceeded")
)  # fmt: skip
"""Reasons of a failed run that a caller meets as a limit. Waiting helps where a budget's window ends; else the same run
would end alike."""
_MODELS_SECONDS = 30.0  # a provider's list of models is kept

Handler = Callable[[Exchange], Awaitable[None]]
Identify = Callable[[Exchange], Awaitable[Identity]]


_ABOUT = {
    "name": "lockgate",
    "version": __version__,
    "key": "send Authorization: Bearer KEY; lockgate keys create makes one",
    "calls": [dialect.path for dialect in DIALECTS],
    "models": "/v1/models",
    "agents": "model agent:NAME at /v1/chat/completions, or POST /api/v1/agents/NAME/runs",
    "api": "/api/docs",
    "health": "/health",
    "ready": "/ready",
    "metrics": "/metrics",
}
"""What somebody who opens the gateway's address is told. It holds nothing of the project."""


class Gateway:
    """One worker's application. ``await gateway(request)`` serves one request."""

    def __init__(
        self,
        *,
        access: Access,
        directory: Directory,
        proxy: Proxy,
        agents: Agents,
        control: ControlProxy,
        metrics: SharedMetrics,
        emit: Callable[[Span], None],
        external: Callable[[Identify], Mapping[tuple[str, str], Handler]] | None = None,
        batches: Batches | None = None,
    ) -> None:
        self._access = access
        self._directory = directory
        self._proxy = proxy
        self._agents = agents
        self._control = control
        self._metrics = metrics
        self._batches = batches
        self._watchman = Watchman()
        self._rooms = Rooms()
        self._logs_requests = logs.logs_requests()
        self._emit = emit
        self._models: dict[tuple[str, str], tuple[float, list[str]]] = {}
        self._running: set[asyncio.Task[None]] = set()  # the requests that wait for a run
        self._stopping = self._only_runs = False
        self._paths: dict[tuple[str, str], Handler] = {
            **{("POST", dialect.path): partial(self._call, dialect) for dialect in DIALECTS},
            ("GET", "/v1/models"): self._list_models,
            **({} if external is None else external(self._identify)),
            ("POST", "/v1/traces"): self._take_traces,
            ("GET", "/"): self._about,
            ("GET", "/health"): self._health,
            ("GET", "/ready"): self._ready,
            ("GET", "/metrics"): self._render_metrics,
        }

    async def __call__(self, request: HttpRequest) -> None:
        exchange = Exchange(request, self._watchman, self._rooms)
        logs.current.set((exchange.trace_id, exchange.request_id))
        try:
            handler = self._paths.get((exchange.method, exchange.path))
            if handler is None:
                handler = self._other(exchange)
            await handler(exchange)
        except ClientGone:
            pass  # nobody is left to be told
        except LockgateError as error:
            exchange.fail(error)
        except asyncio.CancelledError:  # a stop's deadline: see serve.Server.drain
            exchange.fail(Unavailable("the gateway stops, and this call took longer than it waits for"))
        except Exception:  # the request's boundary: one request's bug must not be another's
            log.exception("request %s failed", exchange.request_id)
            exchange.fail(LockgateError(f"an internal error; request {exchange.request_id}"))
        finally:
            if self._logs_requests:
                _log_request(exchange)
            exchange.end()

    async def end_runs(self, seconds: float) -> None:
        """Take nothing new but the calls of runs, until the runs under way have ended or ``seconds`` are over."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self._only_runs = await self._agents.runs_under_way() or bool(self._running)
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        while self._only_runs and loop.time() < deadline and await self._agents.runs_under_way():  # noqa: ASYNC110 - they end elsewhere
            await asyncio.sleep(0.1)
        self._only_runs = False  # what was on its way is served: nothing new can come

    async def close(self) -> None:
        if self._batches is not None:
            await self._batches.close()
        await self._agents.close()
        await self._control.close()

    def _other(self, exchange: Exchange) -> Handler:
        path = exchange.path
        if exchange.method == "HEAD":  # as monitors ask for /health
            handler = self._paths.get(("GET", path))
            if handler is not None:
                return handler
        if exchange.method == "POST" and path.startswith("/api/v1/agents/") and path.endswith("/runs"):
            return self._run_agent
        if self._batches is not None and path.startswith(("/v1/files", "/v1/uploads", "/v1/batches")):
            return self._serve_batches
        if exchange.method == "GET" and path.startswith("/v1/models/"):
            return self._retrieve_model
        if path.startswith("/v1/"):
            methods = [method for method, known in self._paths if known == path]
            remedy = f"send {methods[0]}" if methods else "see docs/gateway.md for what there is"
            raise NotFound(f"there is no {exchange.method} {path[:200]!r}", remedy=remedy)
        return self._control.pass_on

    async def _identify(self, exchange: Exchange) -> Identity:
        credential = exchange.bearer()
        identity = self._access.recall(credential) or await self._access.ask(credential)
        if self._only_runs and identity.run is None:
            raise _stops(exchange)
        return identity

    # --- model calls ------------------------------------------------------------------------------------------

    async def _call(self, dialect: Dialect, exchange: Exchange) -> None:
        identity = await self._identify(exchange)
        request = dialect.read(await exchange.body())
        if request.model.startswith(AGENT):
            await self._chat_with_agent(exchange, identity, request)
        else:
            await self._proxy.serve(exchange, identity, request)

    async def _chat_with_agent(self, exchange: Exchange, identity: Identity, call: Request) -> None:
        voice = voice_of(call)
        messages, user = voice.heard(call)
        ran = await self._run(exchange, identity, call.model.removeprefix(AGENT), {"messages": messages}, user)
        result, headers = ran.result, _run_headers(ran)
        if result.status == "suspended":
            pending = ApprovalPending(
                f"run {result.run_id!r} waits for an approval",
                run_id=result.run_id,
                approval_id=result.approval_id or "",
            )
            exchange.fail(pending, headers)
        elif result.status != "completed":
            exchange.fail(_failure(ran), headers, {"run_id": result.run_id})
        else:
            created = exchange.started_ns // 1_000_000_000
            if call.stream:
                exchange.stream(200, [("content-type", "text/event-stream"), *headers])
                await exchange.send(voice.events(call, result, created))
            else:
                exchange.respond_json(200, voice.answer(call, result, created), headers)

    async def _serve_batches(self, exchange: Exchange) -> None:
        assert self._batches is not None
        await self._batches.serve(exchange, await self._identify(exchange))

    # --- runs -------------------------------------------------------------------------------------------------

    async def _run_agent(self, exchange: Exchange) -> None:
        identity = await self._identify(exchange)
        agent = exchange.path.removeprefix("/api/v1/agents/").removesuffix("/runs")
        try:
            body = msgspec.json.decode(await exchange.body(), type=RunBody)
        except UNREADABLE as wrong:
            raise InputError(f"the body is wrong: {wrong}", remedy='send {"input": …}') from wrong
        ran = await self._run(exchange, identity, agent, body.input, body.user, session=body.session)
        exchange.respond_json(202 if ran.result.status == "suspended" else 200, ran.result, _run_headers(ran))

    async def _run(
        self,
        exchange: Exchange,
        identity: Identity,
        agent: str,
        input: Any,
        user: str | None,
        *,
        session: str | None = None,
    ) -> Ran:
        if self._stopping and identity.run is None:  # its model calls would come over new connections
            raise _stops(exchange)
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if identity.run is not None and exchange.trace_id.hex() != identity.run.trace_id:
            exchange.trace_id, exchange.parent_id = bytes.fromhex(identity.run.trace_id), None
        session = exchange.headers.get("x-lockgate-session") or session
        for name, value in (("session", session), ("user", user)):
            if value is not None and len(value) > MAX_KEY:
                raise InputError(f"the {name} has {len(value)} characters", remedy=f"use at most {MAX_KEY}")
        origin = origin_of(exchange.headers, identity)
        if origin.session is None and session is not None:
            origin = msgspec.structs.replace(origin, session=session)
        if wish := cache_wish(exchange.headers):
            origin = msgspec.structs.replace(origin, cache=wish)
        asked = Asked(
            agent=agent,
            input=input,
            session=session,
            user=user,
            trace_id=exchange.trace_id,
            parent_id=exchange.parent_id,
            request_id=exchange.request_id,
            origin=origin,
        )
        with exchange.watch():
            return await self._agents.run(identity, asked)

    # --- traces -----------------------------------------------------------------------------------------------

    async def _take_traces(self, exchange: Exchange) -> None:
        """OTLP/HTTP. Spans of a run, sent under its token, are found with the run."""
        identity = await self._identify(exchange)
        ingest = otlp.read_json(
            await exchange.body(otlp.MAX_BYTES),
            content_type=exchange.headers.get("content-type") or "",
            content_encoding=exchange.headers.get("content-encoding") or "",
        )
        for span in ingest.spans:
            span.attributes["lockgate.tenant"] = identity.tenant
            if identity.run is not None:
                span.run_id, span.agent = identity.run.run_id, identity.run.agent
                span.effective_digest = identity.run.effective_digest
            self._emit(span)
        exchange.respond_json(200, ingest.response())

    # --- what there is ----------------------------------------------------------------------------------------

    async def _list_models(self, exchange: Exchange) -> None:
        names = await self._model_names(exchange, await self._identify(exchange))
        exchange.respond_json(200, {"object": "list", "data": [_model(name) for name in names]})

    async def _retrieve_model(self, exchange: Exchange) -> None:
        wanted = exchange.path.removeprefix("/v1/models/")
        if wanted not in await self._model_names(exchange, await self._identify(exchange)):
            raise NotFound(
                f"there is no model {wanted[:200]!r} for this key", remedy="GET /v1/models lists what there is"
            )
        exchange.respond_json(200, _model(wanted))

    async def _model_names(self, exchange: Exchange, identity: Identity) -> list[str]:
        """What the caller may call."""
        names = [f"{AGENT}{agent}" for agent in self._directory.routes.agents(identity.environment)]
        if identity.agents is not None:
            names = [name for name in names if name.removeprefix(AGENT) in identity.agents]
        providers = self._proxy.providers.names()
        for listed in await asyncio.gather(*(self._models_of(exchange, identity, name) for name in providers)):
            names += [name for name in listed if self._proxy.may_call(identity, name)]
        return names

    async def _models_of(self, exchange: Exchange, identity: Identity, provider: str) -> list[str]:
        """What a provider says it serves; nothing while it cannot be asked."""
        known = self._models.get((identity.environment, provider))
        if known is not None and time.monotonic() - known[0] < _MODELS_SECONDS:
            return known[1]
        try:
            names = [f"{provider}/{name}" for name in await self._proxy.list_models(identity.environment, provider)]
        except LockgateError:
            names = []
        self._models[identity.environment, provider] = (time.monotonic(), names)
        return names

    async def _about(self, exchange: Exchange) -> None:
        exchange.respond_json(200, _ABOUT)

    async def _health(self, exchange: Exchange) -> None:
        exchange.respond_json(200, {"status": "ok", "version": __version__})

    async def _ready(self, exchange: Exchange) -> None:
        read_at = self._directory.read_at
        if self._stopping:
            status = "stopping"
        elif read_at is None or time.time() - read_at >= LEASE:  # from then on it refuses keys
            status = "the store does not answer"
        else:
            status = "ready"
        exchange.respond_json(200 if status == "ready" else 503, {"status": status})

    async def _render_metrics(self, exchange: Exchange) -> None:
        exchange.respond(200, [("content-type", CONTENT_TYPE)], self._metrics.render().encode())


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}


def _stops(exchange: Exchange) -> Unavailable:
    exchange.send_away()
    return Unavailable("the gateway stops", remedy="ask again: another one takes over, or this one comes back")


def _log_request(exchange: Exchange) -> None:
    logs.current.set((exchange.trace_id, exchange.request_id))  # a run's token may have brought its own trace
    took = (time.time_ns() - exchange.started_ns) / 1e6
    log.info(
        "%s %s %d in %.1f ms", exchange.method, exchange.path, exchange.status, took,
        extra={"method": exchange.method, "path": exchange.path, "status": exchange.status, "ms": round(took, 3)},
    )  # fmt: skip


def _run_headers(ran: Ran) -> Headers:
    return [
        ("x-lockgate-run-id", ran.result.run_id or ran.request.run_id),
        ("x-lockgate-arm", ran.request.arm),
        ("x-lockgate-version", f"{ran.version.agent}@{ran.version.behaviour_digest}"),
        ("x-lockgate-cost-usd", f"{to_usd(ran.result.cost_nano):.9f}"),
    ]


def _failure(ran: Ran) -> LockgateError:
    """A failed run as an error: what a limit stopped is 429, the rest is the run's own."""
    result = ran.result
    kind, message = result.error_type or result.status, result.error or f"the run ended as {result.status!r}"
    message, _, remedy = message.partition("\n  → ")
    if kind == "rate_limited":
        return LimitExceeded(message, limit=kind, retry_after=result.retry_after or 1.0, remedy=remedy or None)
    if kind in _LIMITS:
        return LimitExceeded(message, limit=kind, retry_after=result.retry_after, remedy=remedy or None, reason=kind)
    return RunFailed(kind, message, remedy=f"lockgate runs show {result.run_id}")
