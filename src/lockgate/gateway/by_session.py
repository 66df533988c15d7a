"""Requests by aiohttp's session, for what :class:`~lockgate.gateway.wire.Wire` does not do: Unix sockets, bodies in
parts, and such as wait to be asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from lockgate.errors import UpstreamError
from lockgate.gateway.failures import FAILURES, before_headers


async def ask(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    body: bytes | AsyncIterable[bytes] | None,
    *,
    timeout: float,
    limits: aiohttp.ClientTimeout,
    confirm: bool,
) -> aiohttp.ClientResponse:
    """Send the request, and wait for the headers of its answer. Raises as :meth:`Upstream.send` does."""
    if isinstance(body, AsyncIterable):
        return await _send_parts(session, method, url, headers, body, timeout, limits)
    held = _Held(body or b"") if confirm else None
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
        error = before_headers(failure, url, timeout)
        if held is not None and not held.given:
            error.sent = False
        raise error from failure


async def _send_parts(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    body: AsyncIterable[bytes],
    timeout: float,
    limits: aiohttp.ClientTimeout,
) -> aiohttp.ClientResponse:
    deadline = asyncio.timeout(None)
    parts = _Parts(body, deadline, timeout)
    received = None
    try:
        async with deadline:
            received = await session.request(
                method, url, headers=headers, data=parts, timeout=limits, allow_redirects=False
            )
        return received
    except FAILURES as failure:
        if deadline.expired() and not parts.are_taken:
            late = f"{url.host}:{url.port} took nothing more of the request for {timeout:g} seconds"
            raise UpstreamError(late, sent=True) from failure
        raise before_headers(failure, url, timeout) from failure
    finally:
        if received is None and parts.transport is not None:
            parts.transport.abort()  # closed, it would wait for the other side to take what is left


class _Parts(aiohttp.AsyncIterablePayload):
    """A body in parts, each of which has so many seconds to be taken; and then the answer as many to begin."""

    def __init__(self, body: AsyncIterable[bytes], deadline: asyncio.Timeout, seconds: float) -> None:
        super().__init__(self._timed(body))
        self.are_taken = False
        self.transport: asyncio.WriteTransport | None = None
        self._deadline = deadline
        self._seconds = seconds

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.transport = writer.transport
        await super().write_with_length(writer, content_length)

    async def _timed(self, body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for part in body:
            self._allow(self._seconds)
            yield part
            self._allow(None)
        self.are_taken = True
        self._allow(self._seconds)

    def _allow(self, seconds: float | None) -> None:
        with contextlib.suppress(RuntimeError):  # an answer came before the end of what is sent
            self._deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


class _Held:
    """A body that knows whether it was asked for."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.given = False

    async def parts(self) -> AsyncIterator[bytes]:
        self.given = True
        yield self.body
