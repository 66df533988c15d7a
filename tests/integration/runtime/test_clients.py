from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lockgate.errors import Refused, UpstreamError
from lockgate.runtime import clients
from lockgate.runtime.clients import GatewayClient, by_session
from lockgate.runtime.direct import DirectClient, Endpoint
from lockgate.testing import FakeModelServer, Reply, closing, cut, failing, hanging, nonsense, rate_limited
from lockgate.versions.model import ModelRef

MODEL = ModelRef(provider="local", name="model-1")
BODY = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_gateway_is_asked_under_the_runs_token_and_trace(session: aiohttp.ClientSession) -> None:
    answer = Reply(text="hi", headers={"x-lockgate-cost-usd": "0.000001"})
    with FakeModelServer(answer) as server:
        client = GatewayClient(session, server.base_url, "run-token", traceparent="00-aa-bb-01")
        completion = await client.complete(MODEL, BODY, timeout=60.0)
        [request] = server.requests
    assert (request.headers["authorization"], request.headers["traceparent"]) == ("Bearer run-token", "00-aa-bb-01")
    assert request.model == "local/model-1"
    assert (completion.message["content"], completion.cost_nano) == ("hi", 1000)
    assert completion.usage.input_tokens > 0


async def test_a_provider_is_asked_by_its_own_name_for_the_model_and_priced_here(
    session: aiohttp.ClientSession,
) -> None:
    with FakeModelServer("hi") as server:
        send = by_session(session)
        client = DirectClient(send, lambda name: Endpoint(server.base_url, "key"), lambda model, usage: 42)
        completion = await client.complete(MODEL, BODY, timeout=60.0)
        [request] = server.requests
    assert (request.model, request.headers["authorization"], completion.cost_nano) == ("model-1", "Bearer key", 42)


@pytest.mark.parametrize(
    ("reply", "kind", "status"),
    [
        (failing(500), UpstreamError, 500),
        (failing(400, "no such parameter"), UpstreamError, 400),
        (failing(401), Refused, None),
        (rate_limited(), UpstreamError, 429),
        (closing(), UpstreamError, None),
        (cut(), UpstreamError, None),
        (nonsense(), UpstreamError, None),
        (Reply(body=b"<html>busy</html>"), UpstreamError, None),
        (Reply(body=b'{"choices": []}'), UpstreamError, None),
        (hanging(), TimeoutError, None),
    ],
    ids=lambda value: "",
)
async def test_every_way_a_server_fails_is_an_error_and_never_a_hang(
    session: aiohttp.ClientSession, reply: Reply, kind: type[Exception], status: int | None
) -> None:
    with FakeModelServer(reply) as server:
        client = GatewayClient(session, server.base_url, "t")
        with pytest.raises(kind) as failure:
            await client.complete(MODEL, BODY, timeout=0.5 if kind is TimeoutError else 60.0)
    assert getattr(failure.value, "upstream_status", None) == status


async def test_a_server_that_is_down_was_surely_not_asked(session: aiohttp.ClientSession) -> None:
    with pytest.raises(UpstreamError, match="cannot be reached") as failure:
        await GatewayClient(session, "http://127.0.0.1:9/v1", "t").complete(MODEL, BODY, timeout=60.0)
    assert failure.value.sent is False


async def test_an_endless_answer_is_given_up(session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "LARGEST_ANSWER", 100)
    with FakeModelServer("long " * 100) as server, pytest.raises(UpstreamError, match="larger than 100 bytes"):
        await GatewayClient(session, server.base_url, "t").complete(MODEL, BODY, timeout=60.0)


async def test_a_cancelled_call_leaves_the_server(session: aiohttp.ClientSession) -> None:
    with FakeModelServer(hanging()) as server:
        client = GatewayClient(session, server.base_url, "t")
        asking = asyncio.create_task(client.complete(MODEL, BODY, timeout=30.0))
        await _until(lambda: server.requests)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await _until(lambda: server.requests[0].disconnected)


async def _until(check: Any) -> None:
    async with asyncio.timeout(60):
        while not check():  # noqa: ASYNC110 - the server's thread makes it true
            await asyncio.sleep(0.005)
