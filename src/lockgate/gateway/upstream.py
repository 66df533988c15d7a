"""The one seam for HTTP to the outside: model providers, and the sockets of hosts and the control plane.

What its tests hold a client library to (``tests/integration/gateway/test_upstream.py``): a chunk is handed on the
moment it arrives; a cancelled call closes its connection, also before headers came; an error says whether the
request may have left this machine. Why aiohttp: ``docs/decisions/upstream-client.md``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Protocol

import aiohttp
from yarl import URL

from lockgate import __version__
from lockgate.errors import UpstreamError
from lockgate.gateway import by_session
from lockgate.gateway.failures import FAILURES, after_headers, before_headers
from lockgate.gateway.watchman import Watchman
from lockgate.gateway.wire import Received, Wire, end, missing
from lockgate.project.secrets.masking import Mask, StreamMask

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
MAX_CONNECTIONS = 1024
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that is read as a whole."""
STREAM_SECONDS = 3000.0
"""Seconds a stream may last, however lively: less than the hour after which its hold is taken for lost."""

DEFAULT_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": f"lockgate/{__version__}"}
"""What a request should carry where it says nothing else: an answer comes as it is, not compressed."""

# Below the 5 s after which common servers close an idle connection: a request sent just then could not tell
# whether it was received.
_KEEP_ALIVE = 4.0


class Content(Protocol):
    """Where the bytes of an answer come from: aiohttp's reader, or one that does the same."""

    def is_eof(self) -> bool: ...

    def read_nowait(self) -> bytes: ...

    async def readany(self) -> bytes: ...


class Source(Protocol):
    """A response whose headers have come: of :class:`Wire`, of aiohttp's session, or of a provider's own library."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> Content: ...

    def close(self) -> None: ...


class Answer:
    """A response whose headers have come. Read it, or take piece after piece; then :meth:`close` it.

    ``mask``: the secrets that were sent, which do not stand in what is read: a provider may repeat them. Bytes in which
    none of them stands pass as they are, and at once: only the end of a piece that could be the beginning of one waits
    for the next one.
    """

    __slots__ = ("_between", "_headers", "_masking", "_received", "_until", "_watchman", "mask", "status")

    def __init__(self, received: Source, watchman: Watchman, until: float, between: float) -> None:
        """``until`` (of the monotonic clock) it has to be there, and ``between`` two pieces so many seconds at most."""
        self.status = received.status
        self.mask: Mask | None = None
        self._masking: StreamMask | None = None
        self._received = received
        self._headers = received.headers
        self._watchman = watchman
        self._until = until
        self._between = between

    def header(self, name: str) -> str | None:
        return self._headers.get(name)

    def headers(self) -> list[tuple[str, str]]:
        """All of them, names in lower case."""
        return [(name.lower(), value) for name, value in self._headers.items()]

    async def read(self, limit: int = MAX_ANSWER) -> bytes:
        """The whole body; :class:`UpstreamError` when it breaks off or is longer than ``limit`` bytes."""
        content = self._received.content
        if content.is_eof():  # it came with the headers
            try:
                body = content.read_nowait()
            except FAILURES as failure:
                raise after_headers(failure) from failure
            self.close()
            if len(body) > limit:
                raise _too_long(limit)
        else:
            parts: list[bytes] = []
            taken = 0
            while part := await self._piece():
                taken += len(part)
                if taken > limit:
                    raise _too_long(limit)
                parts.append(part)
            body = b"".join(parts)
        return self.mask.without(body) if self.mask else body

    async def piece(self) -> bytes:
        """What comes next of the body, as soon as it does; nothing at its end. Raises :class:`UpstreamError`."""
        if not self.mask:
            return await self._piece()
        if self._masking is None:
            self._masking = self.mask.stream()
        while part := await self._piece():
            if passed := self._masking.feed(part):
                return passed
        return self._masking.finish()

    async def _piece(self) -> bytes:
        try:
            with self._watchman.expect(min(self._between, self._until - monotonic())):
                part = await self._received.content.readany()
        except FAILURES as failure:
            raise after_headers(failure) from failure
        if not part:
            self.close()  # whoever waits for a connection need not wait for the client to read
        return part

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, else close it."""
        self._received.close()


class Upstream:
    """Sends requests. One per process and event loop; with ``socket`` every request goes to that Unix socket."""

    def __init__(self, socket: Path | None = None, *, connections: int = MAX_CONNECTIONS) -> None:
        """``connections``: at most so many at a time; 0 for as many as are asked for."""
        self._socket = socket
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._wire: Wire | None = None
        self._watchman = Watchman()

    async def send(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float,
        stream: bool = False,
        confirm: bool = False,
        in_company: bool = False,
    ) -> Answer:
        """Send one request and wait for the headers of its answer.

        ``timeout`` is seconds for all of it, or for a stream between two chunks. A body in parts is sent as they come:
        then each may take so long to be taken, and the answer to begin, but what the caller waits for does not count.
        Raises :class:`UpstreamError` with ``sent=False`` only when surely nothing left this machine. ``confirm`` sends
        the body when the other side has said that it is there (HTTP's ``100 Continue``): a process that dies before
        has not got it; it takes a body that is whole. ``in_company``: see :meth:`Wire.ask`.
        """
        session = self._session
        if session is None:
            session = self._open()
        is_long = stream or isinstance(body, AsyncIterable)
        until = monotonic() + (STREAM_SECONDS if is_long else timeout)
        if self._wire is not None and isinstance(body, bytes | None) and not confirm:
            sent = await self._ask(self._wire, method, url, headers, body or b"", timeout, in_company)
            return Answer(sent, self._watchman, until, timeout)
        limits = aiohttp.ClientTimeout(
            total=STREAM_SECONDS if is_long else timeout,
            connect=min(CONNECT_SECONDS, timeout / 2),
            sock_read=timeout if stream else None,
        )
        received = await by_session.ask(
            session, method, url, headers, body, timeout=timeout, limits=limits, confirm=confirm
        )
        return Answer(received, self._watchman, until, timeout)

    async def _ask(
        self,
        wire: Wire,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
        in_company: bool,
    ) -> Received:
        connection = received = None
        try:
            with self._watchman.expect(timeout):
                place = wire.place(url)
                connection = await wire.connect(place, min(CONNECT_SECONDS, timeout / 2))
                received = await wire.ask(connection, place, method, headers, body, in_company)
            return received
        except FAILURES as failure:
            raise before_headers(failure, url, timeout, connected=connection is not None) from failure
        finally:
            if received is None and connection is not None:
                end(connection)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = self._wire = None

    def _open(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if self._socket is not None:
            # A new connection each: one that was kept could not tell whether a process killed since had the request.
            connector = aiohttp.UnixConnector(str(self._socket), limit=self._connections, force_close=True)
        else:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEP_ALIVE)
            moved = missing(connector)
            if moved is None:
                self._wire = Wire(connector)
            else:
                log.warning("aiohttp %s is not as expected (%s): calls cost more CPU", aiohttp.__version__, moved)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self._session


def _too_long(limit: int) -> UpstreamError:
    return UpstreamError(f"the answer is longer than {limit} bytes", sent=True)
