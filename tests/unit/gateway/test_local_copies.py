"""Several copies of a local model behind one address, tried with servers that answer when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from aiohttp import web

from lockgate.gateway.local_copies import in_front_of

PATIENCE = 30.0


class Copy:
    """A model that answers each request with its name, once ``go`` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = asyncio.Queue[tuple[str, bytes]]()
        self.gone = asyncio.Event()
        self.go = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await self.asked.put((request.raw_path, await request.read()))
        response = web.StreamResponse(status=201, headers={"x-copy": self.name})
        await response.prepare(request)
        await response.write(b"first ")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        await response.write(b"second")
        return response

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def copies_served(*copies: Copy) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        addresses = [await stack.enter_async_context(copy.serving()) for copy in copies]
        address = await stack.enter_async_context(in_front_of(addresses))
        yield address, await stack.enter_async_context(aiohttp.ClientSession())


async def test_a_request_goes_to_the_copy_that_has_the_fewest_under_way() -> None:
    one, two = Copy("one"), Copy("two")
    async with (
        copies_served(one, two) as (address, client),
        client.post(f"{address}/v1/x?y=%20z", data=b"a"),
        client.post(f"{address}/v1/x", data=b"b") as second,
    ):
        assert await one.asked.get() == ("/v1/x?y=%20z", b"a")
        assert await two.asked.get() == ("/v1/x", b"b")
        two.go.set()
        assert await second.read() == b"first second"
        await _until_answered_by(two, client, address)


async def test_an_answer_passes_as_it_is_while_it_still_comes() -> None:
    one = Copy("one")
    async with copies_served(one) as (address, client), client.post(f"{address}/v1/x") as answer:
        assert answer.status == 201
        assert await answer.content.readexactly(6) == b"first "
        one.go.set()
        assert await answer.content.read() == b"second"


async def test_a_caller_that_goes_away_ends_its_request_and_frees_the_copy() -> None:
    one, two = Copy("one"), Copy("two")
    async with copies_served(one, two) as (address, client):
        async with client.post(f"{address}/v1/first"):
            await one.asked.get()
        await one.gone.wait()
        await _until_answered_by(one, client, address)


async def test_a_copy_that_is_not_there_is_a_bad_gateway() -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        one = Copy("one")
        async with one.serving() as gone:
            pass
        address = await stack.enter_async_context(in_front_of([gone]))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        async with client.get(f"{address}/health") as answer:
            assert answer.status == 502


async def _until_answered_by(copy: Copy, client: aiohttp.ClientSession, address: str) -> None:
    """The caller may have its answer a moment before the copy counts as free."""
    while True:
        async with client.get(f"{address}/health") as answer:
            if answer.headers["x-copy"] == copy.name:
                return
        await asyncio.sleep(0.02)
