"""The control plane: the API on a Unix socket, and the background work. Gateways pass its paths on to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from lockgate import __version__
from lockgate.bootstrap import App, open_app
from lockgate.errors import Conflict, InputError, LockgateError, NotFound, Refused, TooLarge, Unauthenticated
from lockgate.fleet.heartbeats.api import fleet_routes
from lockgate.fleet.heartbeats.pull_api import pull_routes, refusal
from lockgate.gateway.model import Identity
from lockgate.gateway.problems import problem
from lockgate.gateway.shared_metrics import SharedMetrics
from lockgate.handover_server import HandoverServer
from lockgate.rollouts.api import gitops_routes, rollout_routes
from lockgate.rollouts.leader import Leadership
from lockgate.runs import control_socket
from lockgate.settings.api import settings_routes
from lockgate.telemetry.metrics import GenAI, Registry
from lockgate.ticks import Loop, loops
from lockgate.versions.registry.shelf import Shelf

_log = logging.getLogger(__name__)

LARGEST_BODY = 1 << 18
"""Bytes a request to the control plane may have."""
STOP_SECONDS = 10.0
LISTEN_SECONDS = 60.0
_FORM = "application/x-www-form-urlencoded"
_OBJECT: dict[str, Any] = {"schema": {"type": "object"}}
PROBLEM = {"description": "A problem (RFC 9457).", "content": {"application/problem+json": _OBJECT}}
OPENAI_ERROR = {"description": "OpenAI's error object.", "content": {"application/json": _OBJECT}}

Limit = Annotated[int, Query(ge=1, le=1000)]
Reason = Annotated[str, Body(embed=True, max_length=2000)]


def make_api(app: App) -> FastAPI:
    """The HTTP application. Every route but ``/health`` and ``/ready`` needs an API key with the role ``admin``,
    and sees only that key's environment."""
    api = FastAPI(
        title="Lockgate",
        version=__version__,
        docs_url="/api/docs",
        openapi_url="/api/openapi.json",
        redoc_url=None,
    )
    api.exception_handler(LockgateError)(_deliberate)
    api.exception_handler(HTTPException)(_http)
    api.exception_handler(RequestValidationError)(_invalid)
    api.exception_handler(Exception)(_unexpected)
    api.middleware("http")(_bounded)

    def caller(request: Request) -> Identity:
        identity = app.keys.authenticate(_secret(request))
        if "admin" not in identity.roles:
            raise Refused("this key has not the role admin", remedy="lockgate keys create --role admin")
        return identity

    def member(request: Request) -> Identity:
        identity = app.keys.authenticate(_secret(request))
        if not {"admin", "agent"} & set(identity.roles):
            raise Refused("this key has not the role agent", remedy="lockgate keys create --role agent --agent NAME")
        return identity

    _health(api, app)
    api.include_router(gitops_routes(app.gitops, caller), prefix="/api/v1")
    api.include_router(rollout_routes(app.rollouts, caller), prefix="/api/v1")
    api.include_router(settings_routes(app.settings, caller), prefix="/api/v1")
    api.include_router(_operations(app, caller), prefix="/api/v1")
    api.include_router(fleet_routes(app.fleet, caller, member), prefix="/api")
    api.include_router(pull_routes(app.fleet, Shelf(app.versions), member))
    _document(api)
    return api


def _document(api: FastAPI) -> None:
    """Let ``/api/docs`` tell what users see at one URL: the data plane's paths too, and how errors look."""
    from lockgate.gateway.openapi import data_plane

    own = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = own()
            schema["paths"].update(data_plane())
            for path, operations in schema["paths"].items():
                error = OPENAI_ERROR if path.startswith("/v1/") else PROBLEM
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # it is a problem of status 400 here
                    operation["responses"]["default"] = error
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        return api.openapi_schema or own()

    api.openapi = openapi  # type: ignore[method-assign]


def run() -> None:
    """Serve until SIGTERM or Ctrl-C. Raises :class:`Conflict` when a control plane listens there already."""
    from lockgate.process import die_with_parent
    from lockgate.telemetry import logs

    if os.environ.get("LOCKGATE_GATEWAY_URL"):  # started by `lockgate up`, whose child it stays
        die_with_parent()
    logs.configure("control")
    asyncio.run(serve(open_app()))


async def serve(app: App, stop: asyncio.Event | None = None, ready: asyncio.Event | None = None) -> None:
    """Serve one project's control plane until ``stop`` is set, or a signal comes; the running tick ends first.

    ``ready`` is set as soon as it listens. Raises :class:`Conflict` when the socket is taken.
    """
    from granian.constants import Interfaces
    from granian.server.embed import Server

    path = control_socket(app.home)
    _claim(path)
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    lead = Leadership(app.control, app.clock, name="control", holder=f"{socket.gethostname()}:{os.getpid()}")
    registry = Registry()
    background = loops(app, lead, GenAI(registry))
    metrics = _metrics(app, registry)
    orders = HandoverServer(app)
    server = Server(make_api(app), uds=path, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    try:
        await _until_listening(path, serving)
        os.chmod(path, 0o600)
        await orders.open()
        for each in background:
            each.start()
        metrics.start()
        _log.info("listening on %s", path)
        if ready is not None:
            ready.set()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)
        await orders.close(STOP_SECONDS)
        server.stop()  # type: ignore[no-untyped-call]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, STOP_SECONDS)
        await asyncio.to_thread(_end, background, metrics, lead, path)


def _metrics(app: App, registry: Registry) -> SharedMetrics:
    """The control plane's own metrics, left where a gateway that is asked for metrics adds them up."""
    from lockgate.rollouts.gitops_metrics import GitOpsMetrics

    folder = app.home / "run" / "metrics"
    if app.project.config.gitops is None:
        return SharedMetrics(registry, folder, "control")
    return SharedMetrics(registry, folder, "control", refresh=GitOpsMetrics(registry, app.gitops).refresh)


def _end(background: list[Loop], metrics: SharedMetrics, lead: Leadership, path: Path) -> None:
    metrics.stop()
    for each in background:
        each.stop(STOP_SECONDS)
    lead.release()
    path.unlink(missing_ok=True)


def _claim(path: Path) -> None:
    """Make room for the socket: a leftover of a dead process goes, a live one is respected."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as unclear:
            raise Conflict(f"{str(path)!r} is in use: {unclear}", remedy="stop what uses it") from unclear
    raise Conflict(f"a control plane listens on {str(path)!r} already", remedy="stop it, or set LOCKGATE_HOME")


def _listens(path: Path) -> bool:
    """Whether one may connect: the path is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


async def _until_listening(path: Path, serving: asyncio.Task[Any]) -> None:
    until = time.monotonic() + LISTEN_SECONDS
    while time.monotonic() < until:
        if serving.done():
            serving.result()
            break
        if await asyncio.to_thread(_listens, path):
            return
        await asyncio.sleep(0.02)
    raise Conflict(f"the control plane could not listen on {str(path)!r}", remedy="see its log above")


def _secret(request: Request) -> str:
    """The API key of a request: a bearer token, or, as OCI clients send it, the password of a login."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            _, _, given = base64.b64decode(given, validate=True).decode().partition(":")
            scheme = "bearer"
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthenticated("no API key", remedy="send Authorization: Bearer lgk_…")
    return given.strip()


def _health(api: FastAPI, app: App) -> None:
    @api.get("/health", tags=["health"])
    def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": __version__}

    @api.get("/ready", tags=["health"])
    def ready() -> dict[str, str]:
        """The database answers too."""
        from sqlalchemy import select

        from lockgate.storage.schema import leases

        with app.control.read() as connection:
            leader = connection.execute(select(leases.c.holder).where(leases.c.name == "control")).scalar()
        return {"status": "ready", "leader": leader or ""}


def _operations(app: App, caller: Any) -> APIRouter:
    """Runs, approvals and alerts, thinly over their services."""
    router = APIRouter()

    @router.get("/runs", tags=["runs"])
    def list_runs(
        agent: str | None = None, status: str | None = None, limit: Limit = 50, who: Identity = Depends(caller)
    ) -> list[dict[str, Any]]:
        """Newest first."""
        from lockgate.runtime import service

        return service.list_runs(app.control, agent=agent, status=status, environment=who.environment, limit=limit)

    @router.get("/runs/{run_id}", tags=["runs"])
    def show_run(run_id: str, who: Identity = Depends(caller)) -> dict[str, Any]:
        """A run, step by step."""
        from lockgate.runtime import service

        row = service.read_run(app.control, run_id)
        if row["environment"] != who.environment:
            raise NotFound(f"no run {run_id!r} in {who.environment!r}", remedy="use a key of its environment")
        steps = service.read_steps(app.control, run_id)
        return {**row, "steps": msgspec.to_builtins(steps)}

    @router.get("/approvals", tags=["approvals"])
    def list_approvals(
        status: str | None = None, limit: Limit = 100, who: Identity = Depends(caller)
    ) -> list[dict[str, Any]]:
        """Newest first."""
        found = app.approvals.listed(limit=1000)
        mine = [one for one in found if one.environment == who.environment and status in (None, one.status)]
        return [dict(msgspec.to_builtins(one)) for one in mine[:limit]]

    @router.post("/approvals/{approval_id}/approve", tags=["approvals"])
    def approve(approval_id: str, reason: Reason = "", who: Identity = Depends(caller)) -> dict[str, Any]:
        """Say yes to one exact tool call."""
        _check_approval(approval_id, who)
        return dict(msgspec.to_builtins(app.approvals.approve(approval_id, who.key_id, reason)))

    @router.post("/approvals/{approval_id}/reject", tags=["approvals"])
    def reject(approval_id: str, reason: Reason = "", who: Identity = Depends(caller)) -> dict[str, Any]:
        """Say no to it."""
        _check_approval(approval_id, who)
        return dict(msgspec.to_builtins(app.approvals.reject(approval_id, who.key_id, reason)))

    @router.get("/alerts", tags=["alerts"])
    def list_alerts(
        resolved: bool = False, limit: Limit = 100, who: Identity = Depends(caller)
    ) -> list[dict[str, Any]]:
        """Open alerts, the severest first. They are of the whole project."""
        return [dict(msgspec.to_builtins(one)) for one in app.alerts.list(resolved=resolved, limit=limit)]

    @router.post("/alerts/{alert_id}/resolve", tags=["alerts"])
    def resolve_alert(alert_id: str, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Close one; it opens anew when it is raised again."""
        return dict(msgspec.to_builtins(app.alerts.resolve_by_id(alert_id)))

    def _check_approval(approval_id: str, who: Identity) -> None:
        if app.approvals.get(approval_id).environment != who.environment:
            raise NotFound(f"no approval {approval_id!r} in {who.environment!r}", remedy="use a key of its environment")

    return router


# --- errors, in one shape -----------------------------------------------------------------------------------------


async def _deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, LockgateError)
    if request.url.path.startswith("/v2/"):
        return refusal(error)
    status, headers, body = problem(error, instance=request.url.path)
    return Response(body, status, dict(headers))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = {
        "type": "about:blank",
        "title": str(error.detail),
        "status": error.status_code,
        "detail": f"{request.method} {request.url.path}: {error.detail}",
        "instance": request.url.path,
        "code": "not_found" if error.status_code == 404 else "invalid_request",
    }
    return JSONResponse(body, error.status_code, error.headers, "application/problem+json")


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return await _deliberate(request, InputError(f"the request is wrong: {wrong}", remedy="see /api/docs"))


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return await _deliberate(request, LockgateError("an internal error; the control plane's log has it"))


async def _bounded(request: Request, call_next: Any) -> Response:
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_BODY:
        return await _deliberate(
            request, TooLarge(f"the body has {length} bytes", remedy=f"send at most {LARGEST_BODY}")
        )
    if request.headers.get("content-type", _FORM) == _FORM:
        # What `curl -d` says of any body. There are no forms here, and who asks shows a key, which no page of another
        # site can send: so it is read as the JSON that it is, and a reason in it is not lost.
        others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
        request.scope["headers"] = [*others, (b"content-type", b"application/json")]
    response: Response = await call_next(request)
    return response
