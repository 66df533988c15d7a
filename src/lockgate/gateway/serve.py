"""Serves HTTP on an inherited listening socket, in this process, until told to stop.

A supervisor owns the socket and the processes. Connections are read and written on the event loop's own thread: a
server with threads of its own hands every request and every chunk over twice, and each time one side waits for the
other's turn with the interpreter; see docs/decisions/http-server.md.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any, cast

from lockgate.gateway.http1 import Connection
from lockgate.gateway.http_request import HttpRequest
from lockgate.telemetry import logs

log = logging.getLogger(__name__)

BACKLOG = 1024
MAX_AT_ONCE = 2048
"""Connections a worker has open. For one more, the one that has been idle longest is closed; if none is idle, it waits
in the listen queue."""
DRAIN_SECONDS = 30.0
"""Seconds that calls under way get to end after a SIGTERM."""
DESCRIPTORS = 8192
"""Files and connections that a worker may have open: clients', upstreams', and what it keeps itself."""
FEW = 8
"""Connections from which on a worker lets its siblings go first, and that it then takes at a time."""
_TURN = 0.001  # seconds that it lets them

Application = Callable[[HttpRequest], Awaitable[None]]


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


def allow_descriptors() -> None:
    """Let this process have :data:`DESCRIPTORS`, as far as the system allows. It is begun with 1,024 nearly everywhere,
    for the sake of programs that call select(): a thousand clients that do nothing would leave none for a database."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_at_once() -> int:
    """Connections this process may take: :data:`MAX_AT_ONCE`, or half of its descriptors where the system allows few:
    the calls that they bring need some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_AT_ONCE if soft == resource.RLIM_INFINITY else min(MAX_AT_ONCE, soft // 2)


def stopped_mark(home: Path, index: int) -> Path:
    """The file by which a worker tells its supervisor that it takes no more connections."""
    return home / "run" / f"stopped-{index}"


class Server:
    """One server on the running event loop."""

    def __init__(self, app: Application, descriptor: int, *, siblings: bool = False) -> None:
        """``descriptor`` is a listening socket's; the server owns it from here on.
        ``siblings``: others take connections from it too."""
        self.stopping = False
        self.date = ""
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._listener = socket.socket(fileno=descriptor)
        self._listener.setblocking(False)
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[object]] = set()
        self._takes = False
        self._most = most_at_once()
        self._siblings = siblings
        self._logs_requests = logs.logs_requests()
        self._all_closed = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._look()
        self._take_more()

    @property
    def under_way(self) -> int:
        """Requests that have no answer yet."""
        return sum(connection.is_busy for connection in self._connections)

    async def drain(self, seconds: float = DRAIN_SECONDS, *, stopped: Callable[[], object] = lambda: None) -> bool:
        """Take no more connections, let the calls under way end; False when some had to be cancelled. ``stopped`` is
        called when no more are taken."""
        self.stopping = True
        self._take_no_more()
        self._listener.close()
        stopped()
        for connection in list(self._connections):
            connection.stop()
        self._note_closed()
        await asyncio.wait([self._all_closed], timeout=seconds)
        late = self.under_way
        if late:
            log.warning("%d calls did not end within %g seconds and are cancelled", late, seconds)
            for connection in list(self._connections):
                connection.cancel()
            await asyncio.wait([self._all_closed], timeout=1.0)
        for connection in list(self._connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        return not late

    # --- connections ------------------------------------------------------------------------------------------

    def start(self, request: HttpRequest) -> asyncio.Task[None]:
        return self._loop.create_task(self._serve(request))

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self.stopping:
            self._note_closed()
        else:
            self._take_more()

    def refused(self, status: int, why: str) -> None:
        """What was no request never comes to the application, which else says what was asked."""
        if self._logs_requests:
            log.info("what is no request was refused: %d, %s", status, why, extra={"status": status})

    async def _serve(self, request: HttpRequest) -> None:
        try:
            await self._app(request)
        except BaseException:  # a bug, or cancelled: what was begun is not to look finished
            request.break_off()
            raise
        finally:
            request.end()

    def _take_more(self) -> None:
        if not self._takes and not self.stopping:
            self._takes = True
            self._loop.add_reader(self._listener, self._accept)

    def _take_no_more(self) -> None:
        if self._takes:
            self._takes = False
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        """Take what waits. Connections last, and whoever is awake would take those of all: so a worker that has some
        gives those with fewer a moment's start."""
        if self._siblings and len(self._connections) >= FEW:
            self._take_no_more()
            self._loop.call_later(_TURN, self._take_some)
        else:
            self._take_one()

    def _take_some(self) -> None:
        if not self.stopping:
            self._take_more()
            for _ in range(FEW):
                if not self._take_one():
                    return

    def _take_one(self) -> bool:
        """Whether there was one."""
        leaves = None
        if len(self._connections) >= self._most:
            leaves = self._idle_longest()
            if leaves is None:
                self._take_no_more()
                return False
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as failure:
            log.warning("no connection can be taken: %s", failure)
            self._take_no_more()  # until one has ended, or the next look
            return False
        if leaves is not None:
            self._connections.discard(leaves)
            leaves.abort()
        client.setblocking(False)
        connection = Connection(self, self._loop)
        self._connections.add(connection)
        opening = self._loop.create_task(self._open(connection, client))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return True

    def _idle_longest(self) -> Connection | None:
        """The one that makes room, so that those who ask for nothing keep out nobody who does; None when each has a
        call under way."""
        idle = [(since, connection) for connection in self._connections if (since := connection.idle_since) is not None]
        return min(idle, key=itemgetter(0))[1] if idle else None

    async def _open(self, connection: Connection, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: cast(Any, connection), client)
        except OSError:  # it has gone already
            client.close()
            self.lost(connection)

    def _look(self) -> None:
        """Once a second: what time it is, and who takes too long."""
        self.date = formatdate(usegmt=True)
        now = monotonic()
        for connection in list(self._connections):
            connection.look(now)
        self._take_more()  # who had a call under way may be idle by now, and there may be descriptors
        self._timer = self._loop.call_later(1.0, self._look)

    def _note_closed(self) -> None:
        if not self._connections and not self._all_closed.done():
            self._all_closed.set_result(None)


def serve_forever(
    make_app: Callable[[], Application],
    descriptor: int,
    *,
    end_runs: Callable[[float], Awaitable[None]],
    stopped: Callable[[], object],
    close: Callable[[], Awaitable[None]],
    drain_seconds: float = DRAIN_SECONDS,
    siblings: bool = False,
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
        server = Server(make_app(), descriptor, siblings=siblings)
        gc.collect()
        gc.freeze()  # what is there now lives as long as the process: never look through it again
        gc.set_threshold(20_000, 20, 20)
        await stopping.wait()
        deadline = loop.time() + drain_seconds
        await end_runs(drain_seconds)
        await server.drain(max(0.0, deadline - loop.time()), stopped=stopped)
        await close()

    allow_descriptors()

    import uvloop  # the supervisor, which binds the socket, needs none

    uvloop.run(main())
