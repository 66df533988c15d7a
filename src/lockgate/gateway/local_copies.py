"""One address in front of several copies of a local model: a request goes to the copy with the fewest under way.

Whatever is asked passes through as it is, in both directions; a caller that goes away ends its request at the copy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

ANSWER_SECONDS = 3600.0
"""The longest answer, which is what llama.cpp's own server allows."""
CONNECT_SECONDS = 10.0
_BETWEEN_TWO = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"})
"""Headers of one connection, not of the message."""


@asynccontextmanager
async def in_front_of(copies: Sequence[str]) -> AsyncIterator[str]:
    """The address, such as ``http://127.0.0.1:40123``, for as long as the block lasts; ``copies`` are such too."""
    under_way = [0] * len(copies)
    patience = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        copy = under_way.index(min(under_way))
        under_way[copy] += 1
        try:
            url = copies[copy] + request.raw_path
            async with client.request(request.method, url, headers=_kept(request.headers), data=body) as answer:
                return await _pass_on(answer, request)
        except aiohttp.ClientConnectionError as failure:
            raise web.HTTPBadGateway(text=f"the local model did not answer: {failure}") from failure
        finally:
            under_way[copy] -= 1

    app = web.Application(client_max_size=0)  # the gateway has caps of its own, and so has the model
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connections, timeout=patience, auto_decompress=False) as client:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def _pass_on(answer: aiohttp.ClientResponse, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_kept(answer.headers))
    response.content_length = answer.content_length
    await response.prepare(request)
    async for part in answer.content.iter_any():
        await response.write(part)
    await response.write_eof()
    return response


def _kept(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _BETWEEN_TWO]
