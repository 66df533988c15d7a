"""The fake model server behaves on the wire as a model server does, and fails as it is told."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import openai
import pytest

from lockgate.results import Usage
from lockgate.testing import (
    FakeModelServer,
    Reply,
    call,
    closing,
    cut,
    failing,
    hanging,
    nonsense,
    rate_limited,
)

HELLO = [{"role": "user", "content": "say hello please"}]


def client(server: FakeModelServer, **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=60, **options)


def test_the_official_client_reads_a_completion() -> None:
    reply = Reply(text="hello", usage=Usage(input_tokens=12, output_tokens=3, cached_tokens=8))
    with FakeModelServer([reply]) as server, client(server) as api:
        answer = api.chat.completions.create(model="m-1", messages=HELLO, temperature=0.5)
    assert answer.choices[0].message.content == "hello"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 3)
    assert answer.usage.prompt_tokens_details.cached_tokens == 8
    assert server.requests[0].model == "m-1"
    assert server.requests[0].last_user == "say hello please"
    assert server.requests[0].body["temperature"] == 0.5


def test_a_request_of_another_shape_is_refused_as_a_server_would() -> None:
    with FakeModelServer("hello") as server, client(server) as api, pytest.raises(openai.BadRequestError):
        api.chat.completions.create(model="m", messages=[[None, None]])


def test_the_official_client_reads_a_stream_with_usage() -> None:
    text = "one  two three\nfour "
    with FakeModelServer(text) as server, client(server) as api:
        stream = api.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        events = list(stream)
    assert "".join(event.choices[0].delta.content or "" for event in events if event.choices) == text
    assert events[-1].usage.completion_tokens == 4  # words
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "stop"


def test_usage_is_streamed_only_when_asked_for() -> None:
    with FakeModelServer("hello") as server, client(server) as api:
        events = list(api.chat.completions.create(model="m", messages=HELLO, stream=True))
    assert all(event.usage is None and event.choices for event in events)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_arrive_whole(stream: bool) -> None:
    with FakeModelServer([[call("read_orders", order_id="A-17"), call("ping")]]) as server, client(server) as api:
        answer = api.chat.completions.create(model="m", messages=HELLO, stream=stream)
        if stream:
            calls: dict[int, list[str]] = {}
            for event in answer:
                for part in event.choices[0].delta.tool_calls or ():
                    entry = calls.setdefault(part.index, ["", ""])
                    entry[0] += part.function.name or ""
                    entry[1] += part.function.arguments or ""
            got = [(name, json.loads(arguments)) for name, arguments in calls.values()]
        else:
            got = [(c.function.name, json.loads(c.function.arguments)) for c in answer.choices[0].message.tool_calls]
    assert got == [("read_orders", {"order_id": "A-17"}), ("ping", {})]


def test_responses_come_in_turn_and_running_out_is_an_error() -> None:
    with FakeModelServer(["a", {"item": "toaster"}]) as server, client(server) as api:
        texts = [api.chat.completions.create(model="m", messages=HELLO).choices[0].message.content for _ in range(2)]
        with pytest.raises(openai.InternalServerError, match="2 responses and was asked once more"):
            api.chat.completions.create(model="m", messages=HELLO)
    assert texts == ["a", '{"item": "toaster"}']


def test_a_responder_sees_the_request() -> None:
    with FakeModelServer(lambda request: request.last_user.upper()) as server, client(server) as api:
        answer = api.chat.completions.create(model="m", messages=HELLO)
    assert answer.choices[0].message.content == "SAY HELLO PLEASE"


def test_error_answers_have_their_status_and_headers() -> None:
    with FakeModelServer([failing(503, "down"), rate_limited(7)]) as server, client(server) as api:
        with pytest.raises(openai.InternalServerError, match="down") as failure:
            api.chat.completions.create(model="m", messages=HELLO)
        assert failure.value.status_code == 503
        with pytest.raises(openai.RateLimitError) as limited:
            api.chat.completions.create(model="m", messages=HELLO)
        assert limited.value.response.headers["retry-after"] == "7"


def test_a_wrong_key_is_refused() -> None:
    with FakeModelServer(api_key="secret") as server, client(server) as api, pytest.raises(openai.AuthenticationError):
        api.chat.completions.create(model="m", messages=HELLO)
    assert server.requests == []


def test_models_are_listed() -> None:
    with FakeModelServer(models=("a", "b")) as server, client(server) as api:
        assert [model.id for model in api.models.list()] == ["a", "b"]


@pytest.mark.parametrize("failure", [closing(), nonsense(), cut()])
async def test_a_broken_answer_is_an_error_for_the_client(failure: Reply) -> None:
    async with FakeModelServer([failure]) as server, aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, ValueError)):
            async with session.post(f"{server.base_url}/chat/completions", json={"messages": HELLO}) as response:
                await response.read()
    assert server.disconnects == []  # the server broke it off, not the client


async def test_a_cut_stream_has_begun() -> None:
    async with (
        FakeModelServer([cut("a b c d e f")]) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}/chat/completions", json={"stream": True}) as response,
    ):
        received = await response.content.readuntil(b'"content": "a"')
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert b"[DONE]" not in received


async def test_a_client_that_leaves_before_headers_is_noticed() -> None:
    async with FakeModelServer([hanging()]) as server, aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.post(f"{server.base_url}/chat/completions", json={"messages": HELLO}))
        await asyncio.to_thread(server.wait_for_requests, 1)
        asking.cancel()
        await asyncio.to_thread(server.wait_for_disconnects, 1)
    assert [request.last_user for request in server.disconnects] == ["say hello please"]


async def test_a_client_that_leaves_a_stream_is_noticed() -> None:
    slow = Reply(text="a b c d", chunk_latency=60.0)
    async with FakeModelServer([slow]) as server, aiohttp.ClientSession() as session:
        async with session.post(f"{server.base_url}/chat/completions", json={"stream": True}) as response:
            await response.content.readline()
            response.close()
        await asyncio.to_thread(server.wait_for_disconnects, 1)


async def test_many_requests_wait_side_by_side() -> None:
    async with FakeModelServer("ok") as server, aiohttp.ClientSession() as session:

        async def ask() -> int:
            async with session.post(f"{server.base_url}/chat/completions", json={"messages": HELLO}) as response:
                return response.status

        server.pause()
        asking = asyncio.gather(*(ask() for _ in range(100)))
        await asyncio.to_thread(server.wait_for_requests, 100)
        server.resume()
        statuses = await asking
    assert statuses == [200] * 100
    assert len(server.requests) == 100


async def test_a_chunked_request_body_is_read() -> None:
    async def body():  # type: ignore[no-untyped-def]
        for piece in (b'{"messages": [{"role": "us', b'er", "content": "split"}]}'):
            yield piece

    async with (
        FakeModelServer() as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.base_url}/chat/completions", data=body()) as response,
    ):
        assert response.status == 200
    assert server.requests[0].last_user == "split"


def test_a_responder_that_raises_does_not_end_the_server() -> None:
    def broken(request: object) -> str:
        raise RuntimeError("oops")

    with FakeModelServer(broken) as server, client(server) as api:
        with pytest.raises(openai.InternalServerError, match="oops"):
            api.chat.completions.create(model="m", messages=HELLO)
        server.respond = lambda request: "fine again"
        assert api.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "fine again"
