"""The one seam for HTTP to the outside: model providers, and the sockets of hosts and the control plane.

What its tests hold a client library to (``tests/integration/gateway/test_upstream.py``): a chunk is handed on the
moment it arrives; a cancelled call closes its connection, also before headers came; an error says whether the
request may have left this machine. Why aiohttp: ``docs/decisions/upstream-client.md``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from time import monotonic

import aiohttp
from aiohttp import http
from yarl import URL

from lockgate import __version__
from lockgate.errors import UpstreamError
from lockgate.gateway.watchman import Watchman
from lockgate.gateway.wire import FAILURES, Received, Wire, missing

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


class Answer:
    """A response whose headers have come. Read it, or take its chunks; then :meth:`close` it."""

    __slots__ = ("_between", "_headers", "_received", "_until", "_watchman", "status")

    def __init__(
        self, received: Received | aiohttp.ClientResponse, watchman: Watchman, until: float, between: float
    ) -> None:
        """``until`` (of the monotonic clock) it has to be there, and ``between`` two chunks so many seconds at most."""
        self.status = received.status
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
                raise _after_headers(failure) from failure
            self.close()
            if len(body) > limit:
                raise _too_long(limit)
            return body
        parts: list[bytes] = []
        taken = 0
        async for part in self.chunks():
            taken += len(part)
            if taken > limit:
                raise _too_long(limit)
            parts.append(part)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        content, watchman = self._received.content, self._watchman
        try:
            while True:
                with watchman.expect(min(self._between, self._until - monotonic())):
                    part = await content.readany()
                if not part:
                    self.close()  # whoever waits for a connection need not wait for the client to read
                    return
                yield part
        except FAILURES as failure:
            raise _after_headers(failure) from failure

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

        ``timeout`` is seconds for all of it, or for a stream between two chunks. Raises :class:`UpstreamError`
        with ``sent=False`` only when surely nothing left this machine. ``confirm`` sends the body when the other
        side has said that it is there (HTTP's ``100 Continue``): a process that dies before has not got it; it takes
        a body that is whole. One that comes in parts is sent as they come. ``in_company``: see :meth:`Wire.ask`.
        """
        session = self._session
        if session is None:
            session = self._open()
        until = monotonic() + (STREAM_SECONDS if stream else timeout)
        if self._wire is not None and isinstance(body, bytes | None) and not confirm:
            received: Received | aiohttp.ClientResponse
            received = await self._ask(self._wire, method, url, headers, body or b"", timeout, in_company)
        else:
            received = await self._ask_by_session(session, method, url, headers, body, timeout, stream, confirm)
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
            raise _before_headers(failure, url, timeout, connected=connection is not None) from failure
        finally:
            if received is None and connection is not None:
                connection.close()

    async def _ask_by_session(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes] | None,
        timeout: float,
        stream: bool,
        confirm: bool,
    ) -> aiohttp.ClientResponse:
        """For what :class:`Wire` does not do: Unix sockets, bodies in parts, and such as wait to be asked for."""
        limits = aiohttp.ClientTimeout(
            total=STREAM_SECONDS if stream else timeout,
            connect=min(CONNECT_SECONDS, timeout / 2),
            sock_read=timeout if stream else None,
        )
        held = _Held(body or b"") if confirm and not isinstance(body, AsyncIterable) else None
        if held is not None:
            headers = {**headers, "content-length": str(len(held.body))}
        try:
            return await session.request(
                method,
                url,
                headers=headers,
                data=body if held is None else held.parts(),
                timeout=limits,
                allow_redirects=False,
                expect100=confirm,
            )
        except FAILURES as failure:
            error = _before_headers(failure, url, timeout)
            if held is not None and not held.given:
                error.sent = False
            raise error from failure

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


class _Held:
    """A body that knows whether it was asked for."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.given = False

    async def parts(self) -> AsyncIterator[bytes]:
        self.given = True
        yield self.body


def _before_headers(failure: Exception, url: URL, timeout: float, *, connected: bool = True) -> UpstreamError:
    place = f"{url.host}:{url.port}" if url.host else str(url)
    if isinstance(failure, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UpstreamError(f"{place} cannot be reached: {_reason(failure)}", sent=False)
    if isinstance(failure, (aiohttp.InvalidURL, ValueError)):
        return UpstreamError(f"{place} cannot be asked: {failure}", sent=False)
    if not connected:
        return UpstreamError(f"{place} cannot be reached: {_reason(failure)}", sent=False)
    if isinstance(failure, TimeoutError):
        return UpstreamError(f"{place} did not answer within {timeout:g} seconds", sent=True)
    return UpstreamError(f"{place} closed the connection without an answer: {_reason(failure)}", sent=True)


def _after_headers(failure: Exception) -> UpstreamError:
    if isinstance(failure, UpstreamError):
        return failure
    if isinstance(failure, TimeoutError):
        return UpstreamError("the answer stopped coming", sent=True)
    return UpstreamError(f"the answer broke off: {_reason(failure)}", sent=True)


def _too_long(limit: int) -> UpstreamError:
    return UpstreamError(f"the answer is longer than {limit} bytes", sent=True)


def _reason(failure: BaseException) -> str:
    if isinstance(failure, http.HttpProcessingError):
        return "what it said is no HTTP"
    if isinstance(failure, aiohttp.ClientPayloadError):
        return "the connection closed before its end"
    if isinstance(failure, aiohttp.ServerDisconnectedError):
        return "it hung up"
    if isinstance(failure, aiohttp.ClientConnectorError) and not isinstance(failure, aiohttp.ClientSSLError):
        return failure.strerror or str(failure)  # the whole of it names the address once more
    return str(failure) or type(failure).__name__
