"""Requests by aiohttp's session, for what :class:`~lockgate.gateway.wire.Wire` does not do: Unix sockets, bodies in
parts, and such as wait to be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping

import aiohttp
from yarl import URL

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
        error = before_headers(failure, url, timeout)
        if held is not None and not held.given:
            error.sent = False
        raise error from failure


class _Held:
    """A body that knows whether it was asked for."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.given = False

    async def parts(self) -> AsyncIterator[bytes]:
        self.given = True
        yield self.body
