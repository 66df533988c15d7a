"""Runs, recorded: started, suspended for a person, resumed, ended; and what becomes of those whose host died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from lockgate.clock import Clock
from lockgate.errors import Conflict, InputError, Killed, NotFound, RunFailed, Unavailable
from lockgate.results import RunResult, RunStatus
from lockgate.runs import Arm, Origin, RunRequest, host_socket
from lockgate.runtime import store
from lockgate.runtime.committer import Committer
from lockgate.runtime.context import RunContext
from lockgate.runtime.execution import execute
from lockgate.runtime.journal import Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import ModelClient, Purse, Step, ToolMode
from lockgate.runtime.recording import RunIdentity, StoreRecorder
from lockgate.runtime.shadow import ShadowTools
from lockgate.runtime.tracing import Emit, Tracer
from lockgate.settings import switches
from lockgate.settings.service import Follower
from lockgate.storage.engine import Database
from lockgate.tools.policy import Policy
from lockgate.tools.service import Approvals
from lockgate.versions.model import AgentVersion, ToolContract

log = logging.getLogger(__name__)

ClientFor = Callable[[str, str], ModelClient]
"""``client_for(token, traceparent)``: a run's way to models."""

PurseFor = Callable[[str, str], Purse | None]
"""``purse_for(token, traceparent)``: where a run's paid tools are held for."""

HOST_LOST_AFTER = 15.0
"""Seconds without a heartbeat after which a host is given up for dead."""

MOST_ATTEMPTS = 5
"""A resumed run whose hosts keep dying is given up after so many attempts."""

FORGET_HOST_AFTER = 3600.0
RESUME_TIMEOUT = 10.0


class Live:
    """Tool calls of a live run are carried out, unless ``permit`` raises."""

    def __init__(self, permit: Callable[[], None] = lambda: None) -> None:
        self._permit = permit

    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> None:
        if contract.effect != "pure":
            await asyncio.to_thread(self._permit)


class RunService:
    """Runs one version for a host, and records every step before anything depends on it."""

    def __init__(
        self,
        version: AgentVersion,
        effective_digest: str,
        *,
        control: Database,
        clock: Clock,
        code: Code,
        client_for: ClientFor,
        emit: Emit | None,
        host: str,
        model_timeout: float = 120.0,
        purse_for: PurseFor = lambda token, traceparent: None,
    ) -> None:
        self.version = version
        self.effective_digest = effective_digest
        self.host = host
        self.committer = Committer(control)
        self._control = control
        self._clock = clock
        self._code = code
        self._policy = Policy(version.policies)
        self._approvals = Approvals(control, clock)
        self._client_for = client_for
        self._purse_for = purse_for
        self._emit = emit
        self._model_timeout = model_timeout
        self._settings = Follower()

    async def run(self, request: RunRequest) -> RunResult:
        """One run from its start. Cancelling it records ``cancelled``, and finishes a write that is under way.

        Raises :class:`InputError` for another version's request, :class:`Conflict` for a run id that was used, and
        :class:`Unavailable` when the run cannot be recorded.
        """
        if (request.effective_digest, request.behaviour_digest) != (
            self.effective_digest,
            self.version.behaviour_digest,
        ):
            raise InputError(
                f"the request is for {request.effective_digest!r}, this host serves {self.effective_digest!r}"
            )
        now, host = self._clock(), self.host
        try:
            await _confirmed(
                self.committer.submit(lambda connection: store.add(connection, request, host=host, now=now))
            )
            mode = await self._mode(request)
        except asyncio.CancelledError:  # its row is written all the same, so it needs an end
            gone = RunFailed("cancelled", "the caller went away before the run began")
            return await self._end(request, 1, _failed(request, gone, status="cancelled"), replayed=0)
        except RunFailed as failure:
            return await self._end(request, 1, _failed(request, failure), replayed=0)
        return await self._attempt(request, 1, [], mode)

    async def take(self, run_id: str, token: str) -> Callable[[], Any]:
        """Claim a suspended run for this host; calling what comes back (once) continues it under ``token``.

        Raises :class:`Conflict` when it is not suspended, :class:`NotFound` when it does not exist.
        """
        host, digest = self.host, self.effective_digest

        def claim(connection: Any) -> tuple[Any, list[Step]]:
            row = store.take(connection, run_id, host=host, effective_digest=digest)
            return row, store.steps_of(connection, run_id)

        row, steps = await _confirmed(self.committer.submit(claim))
        request = store.request_of(row, token)
        return lambda: self._attempt(request, row["attempt"], steps, Live(lambda: self._permit(request)))

    async def heartbeat(self, address: str, pid: int) -> None:
        """Register this host, or say that it lives."""
        host, digest, now = self.host, self.effective_digest, self._clock()
        await _confirmed(
            self.committer.submit(
                lambda connection: store.put_host(
                    connection, host=host, effective_digest=digest, pid=pid, address=address, now=now
                )
            )
        )

    async def deregister(self) -> None:
        """The host ends in good order."""
        host = self.host
        await _confirmed(self.committer.submit(lambda connection: store.remove_hosts(connection, host=host)))

    async def _attempt(self, request: RunRequest, attempt: int, recorded: list[Step], mode: ToolMode) -> RunResult:
        tracer = Tracer(
            self._emit,
            self.version,
            run_id=request.run_id,
            effective_digest=self.effective_digest,
            trace_id=request.trace_id,
            parent_span=request.parent_span,
            session=request.session,
            attributes={
                "lockgate.arm": request.arm,
                "lockgate.environment": request.environment,
                "lockgate.tenant": request.tenant,
                "lockgate.rollout.id": request.rollout_id,
                "lockgate.run.attempt": attempt,
            },
        )
        identity = RunIdentity(
            run_id=request.run_id,
            attempt=attempt,
            agent=request.agent,
            environment=request.environment,
            effective_digest=self.effective_digest,
            policy_digest=self.version.policy_digest,
        )
        ctx = RunContext(
            self.version,
            self._client_for(request.token, tracer.traceparent),
            code=self._code,
            policy=self._policy,
            mode=mode,
            recorder=StoreRecorder(self.committer, self._approvals, identity, recorded),
            journal=Journal(recorded),
            cut_off=bool(recorded),
            tracer=tracer,
            clock=self._clock,
            environment=request.environment,
            run_id=request.run_id,
            model_timeout=self._model_timeout,
            allowed=request.tools,
            purse=self._purse_for(request.token, tracer.traceparent),
        )
        result = await execute(ctx, request.input)
        unknown = any(step.status == "started" for step in ctx.journal.steps if step.effect == "write")
        if result.status == "cancelled" and attempt > 1 and not unknown:
            # Nobody waits for a resumed run, so it is only its host that was stopped: another continues it.
            result = msgspec.structs.replace(result, status="suspended", error_type=None, error=None)
        return await self._end(request, attempt, result, replayed=ctx.replayed_calls)

    async def _end(self, request: RunRequest, attempt: int, result: RunResult, *, replayed: int) -> RunResult:
        now = self._clock()

        asked = attempt > 1 or result.approval_id is not None or result.status == "cancelled"

        def end(connection: Any) -> None:
            store.end(connection, request.run_id, attempt, result, replayed=replayed, now=now)
            if asked and result.status != "suspended":
                self._approvals.withdraw(request.run_id, connection=connection)

        try:
            await _confirmed(self.committer.submit(end))
        except Conflict as fenced:
            log.warning("run %s was given up before it ended here: %s", request.run_id, fenced.message)
            return msgspec.structs.replace(
                result, status="failed", output=None, error_type="host_lost", error=fenced.message
            )
        return result

    def _permit(self, request: RunRequest) -> None:
        """Raises :class:`RunFailed` when somebody switched the run's agent, tenant or environment off meanwhile."""
        try:
            with self._control.read() as connection:
                self._settings.refresh(connection)
        except SQLAlchemyError as away:  # a write cannot be recorded then, and so is not made
            log.warning("the settings cannot be read; the last ones hold: %s", away)
        try:
            switches.check(
                self._settings.current, environment=request.environment, tenant=request.tenant, agents=[request.agent]
            )
        except Killed as off:
            raise RunFailed("killed", off.message, remedy=off.remedy) from None

    async def _mode(self, request: RunRequest) -> ToolMode:
        deepest = self.version.limits.max_depth
        if request.depth > deepest:
            raise RunFailed("depth_exceeded", f"the run is {request.depth} calls deep, and max_depth is {deepest}")
        if request.mode == "live":
            return Live(lambda: self._permit(request))
        kind = self.version.framework.kind
        if kind != "native":
            raise RunFailed(
                "shadow_unsupported",
                f"an agent of kind {kind!r} could act outside Lockgate's sight, and there is no sandbox yet",
                remedy="start the rollout without a shadow phase",
            )
        if request.primary_run is None:
            raise RunFailed("unscored", "the shadow names no primary run")
        try:
            steps = await asyncio.to_thread(read_steps, self._control, request.primary_run)
        except NotFound as missing:
            raise RunFailed("unscored", f"the primary: {missing.message}") from missing
        return ShadowTools(steps)


class Resumable(msgspec.Struct, frozen=True, kw_only=True):
    """A suspended run that waits for nobody any more: what a new run token needs to say."""

    run_id: str
    agent: str
    environment: str
    tenant: str
    behaviour_digest: str
    effective_digest: str
    arm: Arm
    trace_id: str
    depth: int
    attempt: int
    tools: tuple[str, ...] | None = None  # that its caller may have called; None: any
    origin: Origin = Origin()


def resumable(control: Database) -> list[Resumable]:
    """Runs to hand to :func:`resume_on_host`, oldest first. Call ``Approvals.expire()`` before."""
    with control.read() as connection:
        rows = store.resumable(connection)
    fields = [name for name in Resumable.__struct_fields__ if name not in ("run_id", "origin")]
    return [
        msgspec.convert(
            {"run_id": row["id"], "origin": row["origin"] or {}} | {name: row[name] for name in fields}, Resumable
        )
        for row in rows
    ]


async def resume_on_host(home: Path, run: Resumable, token: str) -> None:
    """Ask the host that serves the run's version to continue it; returns when the host has taken it over.

    Raises :class:`Unavailable` when no host serves the version now (try again at the next tick), and
    :class:`Conflict` when somebody else resumed it.
    """
    import aiohttp

    socket = host_socket(home, run.effective_digest)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
            session.post(
                "http://host/resume",
                json={"run_id": run.run_id, "token": token},
                timeout=aiohttp.ClientTimeout(total=RESUME_TIMEOUT),
            ) as response,
        ):
            said = (await response.text())[:500]
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"no host answers for run {run.run_id} ({run.effective_digest[:19]}): {type(error).__name__}: {error}"
        ) from error
    if response.status == 409:
        raise Conflict(f"run {run.run_id} cannot be resumed: {said}")
    if response.status != 202:
        raise Unavailable(f"the host of run {run.run_id} answered {response.status}: {said}")


def reap(control: Database, clock: Clock, *, lost_after: float = HOST_LOST_AFTER) -> list[str]:
    """End the runs of dead hosts; returns their ids. The control plane calls it at every tick.

    A run that was writing has an unknown outcome and fails. A resumed one goes back to suspended and is continued
    from its recorded steps. Any other fails, because its caller is gone.
    """
    now = clock()
    approvals = Approvals(control, clock)
    ended: list[str] = []
    with control.write() as connection:
        for row in store.lost(connection, heartbeat_before=now - lost_after):
            status, error_type, error = "failed", "host_lost", "the host died while the run was in progress"
            if store.has_started_step(connection, row["id"]):
                error_type = "outcome_unknown"
                error = "the host died during a write; whether it happened is unknown, and it will not be repeated"
            elif 1 < row["attempt"] < MOST_ATTEMPTS:
                status, error_type, error = "suspended", None, None  # type: ignore[assignment]
            moved = store.give_up(
                connection, row["id"], row["attempt"], status=status, error_type=error_type, error=error, now=now
            )
            if moved:
                ended.append(row["id"])
                if status == "failed":
                    approvals.withdraw(row["id"], connection=connection)
        store.remove_hosts(connection, heartbeat_before=now - FORGET_HOST_AFTER)
    return ended


def read_run(control: Database, run_id: str) -> dict[str, Any]:
    """A run's row. Raises :class:`NotFound`."""
    with control.read() as connection:
        return dict(store.get(connection, run_id))


def read_steps(control: Database, run_id: str) -> list[Step]:
    """A run's steps, in order. Raises :class:`NotFound` when there is no such run."""
    with control.read() as connection:
        store.get(connection, run_id)
        return store.steps_of(connection, run_id)


def list_runs(
    control: Database,
    *,
    status: str | None = None,
    agent: str | None = None,
    environment: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Newest first."""
    with control.read() as connection:
        rows = store.listed(connection, status=status, agent=agent, environment=environment, limit=limit)
        return [dict(row) for row in rows]


def _failed(request: RunRequest, failure: RunFailed, status: RunStatus = "failed") -> RunResult:
    return RunResult(
        status=status,
        run_id=request.run_id,
        trace_id=request.trace_id,
        error_type=failure.error_type,
        error=str(failure),
        retry_after=failure.retry_after,
    )


async def _confirmed(written: Future[Any]) -> Any:
    return await asyncio.wrap_future(written)
