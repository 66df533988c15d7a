"""The process that serves one agent version: HTTP on a Unix socket, for the gateways of this machine.

``POST /runs`` takes a RunRequest and gives a RunResult; a caller that goes away cancels the run. ``POST /resume``
takes ``{"run_id", "token"}`` of a suspended run and answers 202 when it goes on. ``GET /health`` tells what is served.
An answer of 503 means that the run was not started: another host may take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from lockgate.errors import Conflict, InputError, LockgateError, Unavailable
from lockgate.results import RunResult
from lockgate.runs import RunRequest
from lockgate.runtime.service import RunService

log = logging.getLogger(__name__)

HEARTBEAT = 3.0
"""Seconds between heartbeats: five may be missed before the host is given up."""

DRAIN = 30.0
"""Seconds that runs in progress have after the host is told to stop."""

LARGEST_REQUEST = 16 * 1024 * 1024
BACKLOG = 512
MOST_RUNS = 512
"""Runs at once; more are told to go elsewhere (503)."""


class Host:
    """Serves a :class:`RunService` on ``socket``."""

    def __init__(self, service: RunService, socket: Path, *, drain: float = DRAIN, most_runs: int = MOST_RUNS) -> None:
        self.service = service
        self.socket = socket
        self._drain = drain
        self._most_runs = most_runs
        self._runs: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._runner: web.AppRunner | None = None
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and register. Raises :class:`Conflict` when a live host has the socket already."""
        app = web.Application(client_max_size=LARGEST_REQUEST)
        app.router.add_post("/runs", self._post_run)
        app.router.add_post("/resume", self._post_resume)
        app.router.add_get("/health", self._get_health)
        await self._claim_socket()
        await self.service.heartbeat(str(self.socket), os.getpid())
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, _listening(self.socket)).start()
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Take no more runs, give those in progress time to end, cancel the rest, and deregister."""
        self._draining = True
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        await self._ended(self._drain)
        for run in self._runs:
            run.cancel()
        await self._ended(self._drain)
        if self._beating is not None:
            self._beating.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        try:
            await self.service.deregister()
        except Unavailable as away:
            log.warning("the host could not deregister: %s", away.message)
        await asyncio.to_thread(self.service.committer.close)

    async def serve(self, stop: asyncio.Event) -> None:
        """Start, wait for ``stop``, and stop."""
        await self.start()
        try:
            await stop.wait()
        finally:
            await self.stop()

    # --- requests ---------------------------------------------------------------------------------------------

    async def _post_run(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=RunRequest)
        except (msgspec.DecodeError, UnicodeError) as error:
            return _problem(InputError(f"the body is no RunRequest: {error}"))
        if self._draining or len(self._runs) >= self._most_runs:
            return _problem(Unavailable("the host is stopping" if self._draining else "the host is full"), status=503)
        run = self._spawn(self.service.run(asked))
        try:
            result: RunResult = await asyncio.shield(run)
        except asyncio.CancelledError:  # the caller went away
            run.cancel()
            raise
        except LockgateError as error:
            # 503 would say that the run was not started; that it could not be recorded is another matter.
            return _problem(error, status=500 if isinstance(error, Unavailable) else error.status)
        return _json(result)

    async def _post_resume(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=dict[str, str])
            run_id, token = asked["run_id"], asked["token"]
        except (msgspec.DecodeError, UnicodeError, KeyError):
            return _problem(InputError('the body must be {"run_id": …, "token": …}'))
        if self._draining or len(self._runs) >= self._most_runs:
            return _problem(Unavailable("the host is stopping or full"), status=503)
        taking = self._spawn(self._resume(run_id, token))
        try:
            await asyncio.shield(taking)
        except LockgateError as error:
            return _problem(error)
        return _json({"run_id": run_id, "status": "running"}, status=202)

    async def _resume(self, run_id: str, token: str) -> None:
        go_on = await self.service.take(run_id, token)
        self._spawn(go_on())

    async def _get_health(self, _request: web.Request) -> web.Response:
        return _json(
            {
                "status": "draining" if self._draining else "ok",
                "agent": self.service.version.agent,
                "effective_digest": self.service.effective_digest,
                "host": self.service.host,
                "pid": os.getpid(),
                "runs": len(self._runs),
            }
        )

    # --- the process ------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Work that outlives its request; ``stop`` waits for it."""
        task = asyncio.create_task(work)
        self._runs.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._runs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, LockgateError):
            log.error("a run ended with a defect", exc_info=error)

    async def _ended(self, timeout: float) -> None:
        """Wait for all runs, including those that begin meanwhile, for at most ``timeout`` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._runs and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._runs), timeout=left)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                await self.service.heartbeat(str(self.socket), os.getpid())
            except Unavailable as away:
                log.warning("no heartbeat: %s", away.message)

    async def _claim_socket(self) -> None:
        self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.socket.exists():
            return
        if not stat.S_ISSOCK(self.socket.stat().st_mode):
            raise Conflict(f"{self.socket} exists and is no socket", remedy="move it away")
        try:
            async with asyncio.timeout(1.0):
                _, writer = await asyncio.open_unix_connection(str(self.socket))
        except (OSError, TimeoutError):  # left behind by a host that was killed
            with contextlib.suppress(FileNotFoundError):
                self.socket.unlink()
            return
        writer.close()
        raise Conflict(f"a host listens on {self.socket} already", remedy="one host per version and machine is enough")


def _listening(path: Path) -> socket.socket:
    """A socket that appears at ``path`` when it listens already: whoever sees it may connect."""
    hidden = path.with_name(f".{os.getpid()}.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            hidden.unlink()
        listener.bind(str(hidden))
        hidden.chmod(0o600)
        listener.listen(BACKLOG)
        hidden.rename(path)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


async def serve_until_signalled(host: Host) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    await host.serve(stop)


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _problem(error: LockgateError, *, status: int | None = None) -> web.Response:
    body = {"error": {"code": error.code, "message": str(error)}}
    return _json(body, status=error.status if status is None else status)
