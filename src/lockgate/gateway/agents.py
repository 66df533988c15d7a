"""Running an agent: route, assign to an arm, ask the version's host, answer; and shadow some runs afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from lockgate import ids
from lockgate.clock import Clock
from lockgate.errors import LimitExceeded, LockgateError, NotFound, Unavailable, UpstreamError
from lockgate.gateway import switches
from lockgate.gateway.access import check_agent
from lockgate.gateway.agent_breakers import AgentBreakers, TellAgent
from lockgate.gateway.directory import Directory
from lockgate.gateway.model import Identity, Route, RunClaims
from lockgate.gateway.routes import chosen
from lockgate.gateway.shadowing import Shadows, copy_of
from lockgate.gateway.tokens import sign
from lockgate.gateway.upstream import Upstream
from lockgate.money import to_nano
from lockgate.results import RunResult
from lockgate.runs import Arm, Origin, RunRequest, host_socket
from lockgate.telemetry.context import format_traceparent, new_span_id
from lockgate.telemetry.metrics import GenAI
from lockgate.telemetry.model import ERROR, OK, SERVER, Span
from lockgate.telemetry.writer import SpanWriter
from lockgate.versions.model import ActionLimits, VersionRef

log = logging.getLogger(__name__)

Assign = Callable[[str, str, float, float], Arm]
"""``assign(rollout_id, key, weight, now)``: the arm of an assignment key, written down before it is told."""
LimitsOf = Callable[[str], ActionLimits]
"""The action limits of a version, by its behaviour digest."""

MirrorsOf = Callable[[str], Sequence[tuple[str, float]]]
"""``(environment, percent)`` of each that mirrors the traffic of the one named."""

HOST_WAIT = 15.0
"""Seconds to wait for the stable version's host to listen: it may be starting, or starting again."""
GRACE = 15.0
"""Seconds beyond a run's own limit until its host is given up."""
SHADOWS_QUEUED = 64
SHADOWS_AT_ONCE = 2
MIRRORED_AT_ONCE = 1

_RUNS = URL("http://host/runs")
_RETRY = 0.05  # seconds
_result = msgspec.json.Decoder(RunResult).decode
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """A run as a caller asked for it."""

    agent: str
    input: Any  # a string, or {"messages": [...]}
    session: str | None
    user: str | None
    trace_id: bytes
    parent_id: bytes | None
    request_id: str
    origin: Origin


class Ran(NamedTuple):
    """A run and where it went."""

    result: RunResult
    request: RunRequest
    version: VersionRef


class _NotStarted(Exception):
    """The host did not take the run: another may."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Agents:
    """Runs agents for callers. One per worker."""

    def __init__(
        self,
        *,
        home: Path,
        directory: Directory,
        assign: Assign,
        limits_of: LimitsOf,
        secret: bytes,
        spans: SpanWriter,
        metrics: GenAI,
        clock: Clock,
        mirrors_of: MirrorsOf = lambda _: (),
        can_be_shadowed: Callable[[str], bool] = lambda _: True,
        tell: TellAgent = lambda environment, agent, fallback, is_open: None,
    ) -> None:
        """``can_be_shadowed`` says it of a version, by its behaviour digest."""
        self._home = home
        self._directory = directory
        self._assign = assign
        self._limits_of = limits_of
        self._secret = secret
        self._spans = spans
        self._metrics = metrics
        self._clock = clock
        self._hosts: dict[str, Upstream] = {}
        self.breakers = AgentBreakers(tell)
        self._mirrors_of = mirrors_of
        self._can_be_shadowed = can_be_shadowed

        def count(environment: str, outcome: str) -> None:
            metrics.shadows.add(1, environment, outcome)

        self._shadows = Shadows(self._shadow, queued=SHADOWS_QUEUED, at_once=SHADOWS_AT_ONCE, count=count)
        # Of their own: what an environment mirrors must not take the place of a rollout's evidence.
        self._mirrored = Shadows(self._shadow, queued=SHADOWS_QUEUED, at_once=MIRRORED_AT_ONCE, count=count)

    async def run(self, identity: Identity, asked: Asked) -> Ran:
        """Run the agent to its end, or to where it waits for an approval.

        Raises Refused, NotFound, LimitExceeded (call chain too deep), Unavailable (no host took it) and
        UpstreamError (the host took it, and then died).
        """
        check_agent(identity, asked.agent)
        switches.check(self._directory.settings, identity, agent=asked.agent)
        route = self._route(identity, asked.agent)
        asked = asked._replace(agent=route.agent)
        run_id = ids.new_id("run")
        key = asked.session or asked.user or run_id
        arm = await self._arm(route, key)
        start_ns = time.time_ns()
        span_id = new_span_id()
        error: LockgateError | None = None
        ran: Ran | None = None
        try:
            ran = await self._try_arms(identity, asked, route, run_id, key, arm, span_id)
            self._mirror_elsewhere(ran)
            return ran
        except LockgateError as raised:
            error = raised
            raise
        finally:
            result = ran.result if ran is not None else None
            self.breakers.ended(route, ran.request.arm if ran is not None else arm, result, error, time.monotonic())
            self._record(identity, asked, run_id, span_id, start_ns, ran, error)

    def _route(self, identity: Identity, agent: str) -> Route:
        """The agent's route, or its stand-in's while its runs keep failing."""
        route = self._directory.route(identity.environment, agent)

        def find(name: str) -> Route:
            switches.check(self._directory.settings, identity, agent=name)
            return self._directory.route(identity.environment, name)

        return self.breakers.stand_in(route, find, time.monotonic())

    @property
    def shadows_dropped(self) -> int:
        """How many shadows found no place in their queue."""
        return self._shadows.dropped + self._mirrored.dropped

    async def runs_under_way(self) -> bool:
        """Whether a run of this machine's hosts has not ended, whoever asked for it."""
        folder = str(host_socket(self._home, "0" * 12).parent)  # a path too long for a socket's name is elsewhere
        return await asyncio.to_thread(self._directory.runs_under_way, folder)

    async def close(self) -> None:
        """Stop shadowing and close the connections to hosts."""
        await self._shadows.close()
        await self._mirrored.close()
        for host in self._hosts.values():
            await host.close()

    # --- the live run -----------------------------------------------------------------------------------------

    async def _arm(self, route: Route, key: str) -> Arm:
        if route.candidate is None or route.rollout_id is None:
            return "stable"
        try:
            return await asyncio.to_thread(self._assign, route.rollout_id, key, route.weight, self._clock())
        except (SQLAlchemyError, Unavailable) as failure:
            # An arm that is not written down could change under the caller, and would not count as evidence.
            log.warning("no arm could be assigned; serving %s's stable version: %s", route.agent, failure)
            return "stable"

    async def _try_arms(
        self, identity: Identity, asked: Asked, route: Route, run_id: str, key: str, arm: Arm, span_id: bytes
    ) -> Ran:
        if arm == "candidate" and route.candidate is not None:
            request = self._request(identity, asked, route, route.candidate, "candidate", run_id, key, span_id)
            try:
                return Ran(await self._ask(request, wait=0.0), request, route.candidate)
            except _NotStarted as reason:
                log.warning("the candidate's host did not take run %s, the stable one does: %s", run_id, reason.reason)
        request = self._request(identity, asked, route, route.stable, "stable", run_id, key, span_id)
        try:
            ran = Ran(await self._ask(request, wait=HOST_WAIT), request, route.stable)
        except _NotStarted as failure:
            raise Unavailable(
                f"no host serves {asked.agent!r} ({route.stable.effective_digest[:19]}): {failure.reason}",
                remedy="lockgate up starts hosts; its output says why one did not",
            ) from failure
        if ran.result.status in ("completed", "failed"):
            self._mirror(route, request)
        return ran

    def _request(
        self,
        identity: Identity,
        asked: Asked,
        route: Route,
        version: VersionRef,
        arm: Arm,
        run_id: str,
        key: str,
        span_id: bytes,
    ) -> RunRequest:
        depth = 0 if identity.run is None else identity.run.depth + 1
        limits = self._limits_of(version.behaviour_digest)
        if depth > limits.max_depth:
            raise LimitExceeded(
                f"a run that is {depth} calls deep asked for agent {asked.agent!r}, which allows {limits.max_depth}",
                limit="max_depth",
                reason="depth_exceeded",
                remedy="end the recursion, or raise budgets.max_depth",
            )
        request = RunRequest(
            run_id=run_id,
            agent=asked.agent,
            environment=route.environment,
            behaviour_digest=version.behaviour_digest,
            effective_digest=version.effective_digest,
            arm=arm,
            rollout_id=route.rollout_id,
            assignment_key=key,
            session=asked.session,
            tenant=identity.tenant,
            input=asked.input,
            trace_id=asked.trace_id.hex(),
            parent_span=span_id.hex(),
            token="",
            depth=depth,
            tools=identity.tools if identity.run is None else identity.run.tools,
            origin=asked.origin,
        )
        return self._with_token(request, limits)

    def _with_token(self, request: RunRequest, limits: ActionLimits) -> RunRequest:
        claims = claims_for(request, limits, now=self._clock())
        return msgspec.structs.replace(request, token=sign(claims, self._secret))

    async def _ask(self, request: RunRequest, *, wait: float) -> RunResult:
        """The host's result; :class:`_NotStarted` when after ``wait`` seconds none has taken the run."""
        limit = self._limits_of(request.behaviour_digest).max_seconds + GRACE
        host = self._host(request.effective_digest)
        body = _encode(request)
        headers = {
            "content-type": "application/json",
            "traceparent": format_traceparent(
                bytes.fromhex(request.trace_id), bytes.fromhex(request.parent_span or "0" * 16)
            ),
        }
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            try:
                answer = await host.send("POST", _RUNS, headers=headers, body=body, timeout=limit, confirm=True)
            except UpstreamError as failure:
                if failure.sent:
                    raise UpstreamError(
                        f"the host of run {request.run_id!r} went away while it ran: {failure.message}", sent=True
                    ) from failure
                reason = failure.message
            else:
                try:
                    taken = await answer.read()
                finally:
                    answer.close()
                if answer.status == 200:
                    return _result(taken)
                reason = f"it answered {answer.status}: {taken[:300].decode('utf-8', 'replace')}"
                if answer.status != 503:
                    raise UpstreamError(f"the host of run {request.run_id!r} failed: {reason}", sent=True)
            if asyncio.get_running_loop().time() >= deadline:
                raise _NotStarted(reason)
            await asyncio.sleep(_RETRY)

    def _host(self, effective_digest: str) -> Upstream:
        host = self._hosts.get(effective_digest)
        if host is None:
            host = self._hosts[effective_digest] = Upstream(host_socket(self._home, effective_digest))
        return host

    def _record(
        self,
        identity: Identity,
        asked: Asked,
        run_id: str,
        span_id: bytes,
        start_ns: int,
        ran: Ran | None,
        error: LockgateError | None,
    ) -> None:
        """The gateway's own span of the run: no tokens, no cost, those stand on the model calls below it."""
        end_ns = time.time_ns()
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": asked.agent,
            "lockgate.environment": identity.environment,
            "lockgate.tenant": identity.tenant,
            "lockgate.request_id": asked.request_id,
        }
        error_type = ""
        if ran is not None:
            attributes["lockgate.arm"] = ran.request.arm
            attributes["lockgate.run.status"] = ran.result.status
            error_type = ran.result.error_type or ""
        elif error is not None:
            error_type = error.code
        else:
            error_type = "client_gone"
        if error_type:
            attributes["error.type"] = error_type
        self._spans.emit(
            Span(
                trace_id=asked.trace_id,
                span_id=span_id,
                parent_id=asked.parent_id,
                name=f"serve {asked.agent}",
                kind=SERVER,
                start_ns=start_ns,
                end_ns=end_ns,
                status=ERROR if error_type else OK,
                status_message=(error.message if error else "") or (ran.result.error or "" if ran else ""),
                run_id=run_id,
                agent=asked.agent,
                effective_digest=ran.version.effective_digest if ran else None,
                attributes=attributes,
            )
        )
        self._metrics.agent_seconds.observe((end_ns - start_ns) / 1e9, asked.agent, error_type)

    # --- shadows ----------------------------------------------------------------------------------------------

    def _mirror(self, route: Route, primary: RunRequest) -> None:
        """Queue a shadow of a finished stable run, if it is among those to mirror. Never waits."""
        if route.candidate is None or not chosen(primary.run_id, route.mirror):
            return
        self._shadows.add(copy_of(primary, route.candidate, route.environment, primary.rollout_id))

    def _mirror_elsewhere(self, ran: Ran) -> None:
        """Queue a shadow in each environment that mirrors this one's traffic. Never waits."""
        primary = ran.request
        if ran.result.status not in ("completed", "failed") or primary.depth:
            return
        for environment, percent in self._mirrors_of(primary.environment):
            if not chosen(f"{environment} {primary.run_id}", percent):
                continue
            try:
                version = self._directory.route(environment, primary.agent).stable
                if self._can_be_shadowed(version.behaviour_digest):
                    self._mirrored.add(copy_of(primary, version, environment, None))
            except NotFound:
                continue  # nothing is deployed there
            except LockgateError as failure:  # whatever it is, the caller has its answer
                log.warning("run %s is not mirrored in %s: %s", primary.run_id, environment, failure)

    async def _shadow(self, request: RunRequest) -> RunResult | None:
        try:
            return await self._ask(self._with_token(request, self._limits_of(request.behaviour_digest)), wait=HOST_WAIT)
        except _NotStarted as failure:
            log.warning("no host took the shadow of run %s: %s", request.primary_run, failure)
            return None


class Claimant(Protocol):
    """A run that needs a token: one that begins, or one that goes on."""

    @property
    def run_id(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def behaviour_digest(self) -> str: ...
    @property
    def effective_digest(self) -> str: ...
    @property
    def arm(self) -> Arm: ...
    @property
    def trace_id(self) -> str: ...
    @property
    def depth(self) -> int: ...
    @property
    def tools(self) -> tuple[str, ...] | None: ...
    @property
    def origin(self) -> Origin: ...


def claims_for(request: Claimant, limits: ActionLimits, *, now: float) -> RunClaims:
    """What the run's token says: who it is, and what it may use at most."""
    usd = limits.max_usd_per_run
    return RunClaims(
        run_id=request.run_id,
        agent=request.agent,
        environment=request.environment,
        tenant=request.tenant,
        behaviour_digest=request.behaviour_digest,
        effective_digest=request.effective_digest,
        arm=request.arm,
        trace_id=request.trace_id,
        depth=request.depth,
        expires_at=now + limits.max_seconds + GRACE,
        max_usd_nano=None if usd is None else to_nano(usd),
        max_llm_calls=limits.max_llm_calls,
        max_tokens=limits.max_tokens_per_run,
        max_tool_calls=limits.max_tool_calls,
        max_iterations=limits.max_iterations,
        max_depth=limits.max_depth,
        tools=request.tools,
        origin=request.origin,
    )
