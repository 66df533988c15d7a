"""A request on a connection of aiohttp's pool, without aiohttp's session.

aiohttp still resolves names, connects, speaks TLS, keeps the pool and parses what comes back. What its session does
for a call besides (cookies, redirects, proxies, tracing, headers of its own, timers) is not wanted here, and takes more
time than all the rest: see docs/decisions/upstream-client.md. With an aiohttp in which the parts used here have moved
(:func:`missing`), the session is used all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from inspect import signature
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from lockgate.gateway.headers import field_lines
from lockgate.gateway.server import Server

_URLS = 1000
_AT_ONCE = 64 * 1024
"""Bytes of a body up to which it leaves in one piece with the headers."""


class Place(NamedTuple):
    """Where requests to one URL go."""

    request: aiohttp.ClientRequest  # by which the pool knows the server
    line: str  # of a request, behind its method; and the header that names the host


class Received(NamedTuple):
    """An answer whose headers have come, and the connection that the rest comes over."""

    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader
    connection: Any  # aiohttp's connector.Connection

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, else close it."""
        transport = self.connection.transport
        if self.content.is_eof() and transport is not None and not transport.get_write_buffer_size():
            self.connection.release()
        else:
            end(self.connection)


def end(connection: Any) -> None:
    """Close it; what it has not sent yet is not kept for an upstream that does not take it."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()
    connection.close()


def missing(connector: aiohttp.BaseConnector) -> str | None:
    """What of aiohttp that is used here, and that it does not promise to keep, is not as it was; None when all is."""
    try:
        request = Server("GET", URL("http://localhost/"), loop=asyncio.get_running_loop())
        assert request.headers["host"]
        assert request.connection_key is request.connection_key
        signature(connector.connect).bind(request, [], aiohttp.ClientTimeout(connect=1.0))
        signature(ResponseHandler.set_response_params).bind(None, skip_payload=False, read_until_eof=True)
        signature(ResponseHandler.read).bind(None)
        signature(aiohttp.StreamReader.read_nowait).bind(None)
    except (AttributeError, TypeError, LookupError, AssertionError) as changed:
        return f"{type(changed).__name__}: {changed}"
    return None


class Wire:
    """Writes requests and reads the heads of their answers. One per connector."""

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._places: dict[URL, Place] = {}
        self._limits: dict[float, aiohttp.ClientTimeout] = {}

    async def connect(self, place: Place, seconds: float) -> Any:
        """A connection of the pool, or a new one, which takes at most so long."""
        limit = self._limits.get(seconds)
        if limit is None:
            limit = self._limits[seconds] = aiohttp.ClientTimeout(connect=seconds)
        return await self._connector.connect(place.request, [], limit)

    async def ask(
        self, connection: Any, place: Place, method: str, headers: Mapping[str, str], body: bytes, in_company: bool
    ) -> Received:
        """Send the request, and wait for the headers of its answer. The connection is the caller's to :func:`end`.

        ``in_company``: it leaves at the end of this round of the event loop, with those of the other calls.
        """
        protocol = connection.protocol
        protocol.set_response_params(skip_payload=method == "HEAD", read_until_eof=True)
        head = _head(method, place, headers, len(body))
        write = connection.transport.write
        if len(body) > _AT_ONCE:
            write(head)
            write(body)
        elif in_company:
            self._loop.call_soon(write, head + body)
        else:
            write(head + body)
        while True:
            message, content = await protocol.read()
            if message.code >= 200 or message.code == 101:  # else there is more to come
                return Received(message.code, message.headers, content, connection)

    def place(self, url: URL) -> Place:
        """Raises ValueError for what is no URL of a server."""
        place = self._places.get(url)
        if place is None:
            if url.scheme not in ("http", "https"):
                raise ValueError(f"{str(url)!r} is no http(s) URL")
            request = Server("GET", url, loop=self._loop)
            if len(self._places) >= _URLS:
                self._places.clear()
            place = Place(request, f" {url.raw_path_qs} HTTP/1.1\r\nhost: {request.headers['host']}\r\n")
            self._places[url] = place
        return place


def _head(method: str, place: Place, headers: Mapping[str, str], size: int) -> bytes:
    return f"{method}{place.line}{field_lines(headers.items())}content-length: {size}\r\n\r\n".encode()
