"""Runs an RSGI application on an inherited listening socket, in this process, until told to stop.

granian's own servers bind their sockets themselves and stop all workers when one dies; here a supervisor owns the
socket and the processes, and granian is the HTTP server inside one of them. The event loop is libuv's: to wake it from
granian's threads takes no hand-over of the interpreter, which asyncio's own does, and costs a tenth of a request.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from granian._futures import _future_watcher_wrapper, _new_cbscheduler
from granian._granian import RSGIWorker, SocketHolder, WorkerSignal
from granian.http import HTTP1Settings

log = logging.getLogger(__name__)

BACKLOG = 1024
HEADER_SECONDS = 10
MAX_HEADER_BYTES = 64 * 1024
"""Bytes of a request's line and headers together."""
MAX_AT_ONCE = 2048
"""Connections a worker has open; more wait in the listen queue."""
DRAIN_SECONDS = 30.0
"""Seconds that calls under way get to end after a SIGTERM."""

RsgiApp = Callable[[Any, Any], Awaitable[None]]


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket that children can inherit. Raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def stopped_mark(home: Path, index: int) -> Path:
    """The file by which a worker tells its supervisor that it takes no more connections."""
    return home / "run" / f"stopped-{index}"


class Server:
    """One server on the running event loop."""

    def __init__(self, app: RsgiApp, descriptor: int) -> None:
        """``descriptor`` is a listening socket's; the server owns it from here on."""
        self._loop = asyncio.get_running_loop()
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = WorkerSignal()
        self._stopped = self._loop.create_future()
        self._stop.add_cb(lambda: self._loop.call_soon_threadsafe(self._note_stopped))
        # The published types of both are not those of this release.
        make, hold = cast(Any, RSGIWorker), cast(Any, SocketHolder)
        worker = make(
            1,
            (None, hold(descriptor, False, BACKLOG)),
            None,  # no metrics pipe
            1,  # runtime threads
            8,  # blocking threads of the runtime
            1,  # Python threads
            30,  # seconds a Python thread may idle
            MAX_AT_ONCE,
            "1",
            HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=MAX_HEADER_BYTES),
            None,  # HTTP/2
            False,  # websockets
            None,  # static files
            False, None, None, None, "tls1.3", None, [], False,  # TLS
            (None, None),  # metrics
        )  # fmt: skip
        call = _future_watcher_wrapper(self._serve)  # type: ignore[no-untyped-call]
        scheduler = _new_cbscheduler(self._loop, call, impl_asyncio=True)  # type: ignore[no-untyped-call]
        worker.serve_str(scheduler, self._loop, self._stop)

    async def drain(self, seconds: float = DRAIN_SECONDS, *, stopped: Callable[[], object] = lambda: None) -> bool:
        """Take no more connections, let the calls under way end; False when some had to be cancelled. ``stopped`` is
        called when no more are taken."""
        self._stop.set()
        stopped()
        done, _ = await asyncio.wait([self._stopped], timeout=seconds)
        if done:
            return True
        log.warning("%d calls did not end within %g seconds and are cancelled", len(self._tasks), seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.wait([self._stopped], timeout=1.0)
        return False

    async def _serve(self, scope: Any, protocol: Any) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._tasks.add(task)
        try:
            await self._app(scope, protocol)
        finally:
            self._tasks.discard(task)

    def _note_stopped(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)


def serve_forever(
    make_app: Callable[[], RsgiApp],
    descriptor: int,
    *,
    end_runs: Callable[[float], Awaitable[None]],
    stopped: Callable[[], object],
    close: Callable[[], Awaitable[None]],
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Serve until SIGTERM; then ``end_runs`` within so many seconds, drain, and ``close`` what the application holds.
    ``stopped`` is called when no more connections are taken.

    Connections are taken until the runs have ended: a run under way makes its next model call over a new one.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the supervisor, which decides
        server = Server(make_app(), descriptor)
        gc.collect()
        gc.freeze()  # what is there now lives as long as the process: never look through it again
        gc.set_threshold(20_000, 20, 20)
        await stopping.wait()
        deadline = loop.time() + drain_seconds
        await end_runs(drain_seconds)
        await server.drain(max(0.0, deadline - loop.time()), stopped=stopped)
        await close()

    import uvloop  # the supervisor, which binds the socket, needs none

    uvloop.run(main())
