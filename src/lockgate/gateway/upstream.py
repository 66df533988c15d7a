"""The one seam for HTTP to the outside: model providers, and the sockets of hosts and the control plane.

What its tests hold a client library to (``tests/integration/gateway/test_upstream.py``): a chunk is handed on the
moment it arrives; a cancelled call closes its connection, also before headers came; an error says whether the
request may have left this machine. Why aiohttp: ``docs/decisions/upstream-client.md``.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path

import aiohttp
from yarl import URL

from lockgate import __version__
from lockgate.errors import UpstreamError

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

    __slots__ = ("_response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    def headers(self) -> list[tuple[str, str]]:
        """All of them, names in lower case."""
        return [(name.lower(), value) for name, value in self._response.headers.items()]

    async def read(self, limit: int = MAX_ANSWER) -> bytes:
        """The whole body; :class:`UpstreamError` when it breaks off or is longer than ``limit`` bytes."""
        length = self._response.content_length
        try:
            if length is not None and length <= limit:
                return await self._response.read()
            parts: list[bytes] = []
            taken = 0
            async for part in self._response.content.iter_any():
                taken += len(part)
                if taken > limit:
                    raise UpstreamError(f"the answer is longer than {limit} bytes", sent=True)
                parts.append(part)
            return b"".join(parts)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise _after_headers(failure) from failure

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        try:
            async for part in self._response.content.iter_any():
                yield part
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise _after_headers(failure) from failure

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, else close it."""
        self._response.close()


class Upstream:
    """Sends requests. One per process and event loop; with ``socket`` every request goes to that Unix socket."""

    def __init__(self, socket: Path | None = None) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

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
    ) -> Answer:
        """Send one request and wait for the headers of its answer.

        ``timeout`` is seconds for all of it, or for a stream between two chunks. Raises :class:`UpstreamError`
        with ``sent=False`` only when surely nothing left this machine. ``confirm`` sends the body when the other
        side has said that it is there (HTTP's ``100 Continue``): a process that dies before has not got it; it takes
        a body that is whole. One that comes in parts is sent as they come.
        """
        session = self._session
        if session is None:
            session = self._session = self._open()
        limits = aiohttp.ClientTimeout(
            total=STREAM_SECONDS if stream else timeout,
            connect=min(CONNECT_SECONDS, timeout / 2),
            sock_read=timeout if stream else None,
        )
        held = _Held(body or b"") if confirm and not isinstance(body, AsyncIterable) else None
        if held is not None:
            headers = {**headers, "content-length": str(len(held.body))}
        try:
            response = await session.request(
                method,
                url,
                headers=headers,
                data=body if held is None else held.parts(),
                timeout=limits,
                allow_redirects=False,
                expect100=confirm,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
            error = _before_headers(failure, url, timeout)
            if held is not None and not held.given:
                error.sent = False
            raise error from failure
        return Answer(response)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if self._socket is not None:
            # A new connection each: one that was kept could not tell whether a process killed since had the request.
            connector = aiohttp.UnixConnector(str(self._socket), limit=MAX_CONNECTIONS, force_close=True)
        else:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )


class _Held:
    """A body that knows whether it was asked for."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.given = False

    async def parts(self) -> AsyncIterator[bytes]:
        self.given = True
        yield self.body


def _before_headers(failure: Exception, url: URL, timeout: float) -> UpstreamError:
    place = f"{url.host}:{url.port}" if url.host else str(url)
    if isinstance(failure, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UpstreamError(f"{place} cannot be reached: {_reason(failure)}", sent=False)
    if isinstance(failure, (aiohttp.InvalidURL, ValueError)):
        return UpstreamError(f"{place} cannot be asked: {failure}", sent=False)
    if isinstance(failure, TimeoutError):
        return UpstreamError(f"{place} did not answer within {timeout:g} seconds", sent=True)
    return UpstreamError(f"{place} closed the connection without an answer: {_reason(failure)}", sent=True)


def _after_headers(failure: Exception) -> UpstreamError:
    if isinstance(failure, UpstreamError):
        return failure
    if isinstance(failure, TimeoutError):
        return UpstreamError("the answer stopped coming", sent=True)
    return UpstreamError(f"the answer broke off: {_reason(failure)}", sent=True)


def _reason(failure: BaseException) -> str:
    return str(failure) or type(failure).__name__
