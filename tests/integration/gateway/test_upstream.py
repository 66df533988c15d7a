"""What the seam promises, whatever client is behind it: immediacy, cancellation, errors that know what was sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from lockgate.errors import UpstreamError
from lockgate.gateway.upstream import Answer, Upstream
from lockgate.gateway.wire import missing

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TIMEOUT = 60.0


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[URL]:
    """A server that reads one request and leaves the rest to ``serve``."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions")
    finally:
        server.close()


@pytest.fixture
async def client() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    yield upstream
    await upstream.close()


async def post(client: Upstream, url: URL, *, timeout: float = TIMEOUT, stream: bool = False) -> Answer:
    return await client.send("POST", url, headers={}, body=b'{"x":1}', timeout=timeout, stream=stream)


async def drain(answer: Answer) -> None:
    while await answer.piece():
        pass


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def test_a_chunk_is_handed_on_before_the_next_one_is_sent(client: Upstream) -> None:
    go_on = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for number in range(3):
            writer.write(chunk(b"data: %d\n\n" % number))
            await writer.drain()
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with serving(serve) as url:
        answer = await post(client, url, stream=True)
        seen = []
        while part := await answer.piece():
            seen.append(part)
            go_on.set()  # the server sends no more until this one has arrived
        assert seen == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_cancelled_before_headers_closes_its_connection(client: Upstream, stream: bool) -> None:
    received, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.set()
        assert await reader.read() == b""
        closed.set()

    async with serving(serve) as url:
        call = asyncio.create_task(post(client, url, stream=stream))
        await asyncio.wait_for(received.wait(), TIMEOUT)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(closed.wait(), TIMEOUT)


async def test_a_stream_left_in_the_middle_closes_its_connection(client: Upstream) -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 0\n\n"))
        await writer.drain()
        await reader.read()
        closed.set()

    async with serving(serve) as url:
        answer = await post(client, url, stream=True)
        assert await answer.piece()
        answer.close()
        await asyncio.wait_for(closed.wait(), TIMEOUT)


async def test_nothing_was_sent_when_nobody_listens(client: Upstream) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = URL(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        with pytest.raises(UpstreamError, match="cannot be reached") as raised:
            await post(client, url)
    assert raised.value.sent is False


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/", "http://no-such-host.invalid:99/v1/x"])
async def test_nothing_was_sent_when_the_name_is_unknown(client: Upstream, url: str) -> None:
    with pytest.raises(UpstreamError, match=r"no-such-host\.invalid") as raised:
        await post(client, URL(url))
    assert raised.value.sent is False


async def test_nothing_was_sent_when_connecting_took_too_long(client: Upstream) -> None:
    with socket.socket() as full:  # its queue of connections is full, so that the next one hangs
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        try:
            with pytest.raises(UpstreamError) as raised:
                await post(client, URL(f"http://127.0.0.1:{full.getsockname()[1]}/"), timeout=0.3)
        finally:
            for one in waiting:
                one.close()
    assert raised.value.sent is False


async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"<html>no</html>\r\n\r\n")
    await writer.drain()


async def nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("serve", [close, reset, nonsense, nothing])
async def test_the_request_may_have_arrived_when_it_was_sent_and_not_answered(client: Upstream, serve: Serve) -> None:
    async with serving(serve) as url:
        with pytest.raises(UpstreamError) as raised:
            await post(client, url, timeout=2.0 if serve is nothing else TIMEOUT)
    assert raised.value.sent is True


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_breaks_off_is_an_error_and_was_sent(client: Upstream, stream: bool) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 0\n\n"))
        await writer.drain()

    async with serving(serve) as url:
        answer = await post(client, url, stream=stream)
        with pytest.raises(UpstreamError, match="broke off") as raised:
            await (drain(answer) if stream else answer.read())
        answer.close()
    assert raised.value.sent is True


async def test_a_stream_that_stops_coming_is_given_up(client: Upstream) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 0\n\n"))
        await writer.drain()
        await reader.read()

    async with serving(serve) as url:
        answer = await post(client, url, timeout=2.0, stream=True)
        with pytest.raises(UpstreamError, match="stopped coming"):
            await drain(answer)
        answer.close()


async def test_what_an_upstream_does_not_take_of_a_large_body_is_not_kept_for_it(client: Upstream) -> None:
    body = b"x" * 32_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = URL(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions")
        with pytest.raises(UpstreamError, match="did not answer"):
            await client.send("POST", url, headers={}, body=body, timeout=1.0)
        connection, _ = listener.accept()

        def late() -> int:
            return sum(iter(lambda: len(connection.recv(1_000_000)), 0))

        with connection:
            connection.settimeout(TIMEOUT)
            assert await asyncio.to_thread(late) < len(body)  # what the kernel had taken


async def test_a_body_in_parts_of_which_nothing_more_is_taken_is_given_up(client: Upstream) -> None:
    left = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with serving(serve) as url:
        with pytest.raises(UpstreamError, match="took nothing more of the request for 1 seconds") as raised:
            await client.send("POST", url, headers={}, body=endless(), timeout=1.0)
        left.set()
    assert raised.value.sent is True


async def test_how_long_the_parts_of_a_body_are_waited_for_does_not_count(client: Upstream) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b"part"
            await asyncio.sleep(1.0)

    async with serving(serve) as url:
        answer = await client.send("POST", url, headers={}, body=slow(), timeout=0.6)
        assert await answer.read() == b"ok"


async def test_a_body_in_parts_that_nobody_answers_is_given_up(client: Upstream) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")
        await left.wait()

    async def two() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with serving(serve) as url:
        with pytest.raises(UpstreamError, match="did not answer within 1 seconds"):
            await client.send("POST", url, headers={}, body=two(), timeout=1.0)
        left.set()


async def test_an_answer_that_comes_before_the_end_of_a_body_in_parts_is_read(client: Upstream) -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"first")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 8\r\n\r\nmuch")
        await writer.drain()
        await asked.wait()
        writer.write(b"more")
        await writer.drain()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await asked.wait()
        yield b"second"

    async with serving(serve) as url:
        answer = await client.send("POST", url, headers={}, body=parts(), timeout=TIMEOUT)
        assert answer.status == 413
        asked.set()
        assert await answer.read() == b"muchmore"
        answer.close()


async def test_a_longer_answer_than_allowed_is_not_read(client: Upstream) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        while True:
            writer.write(chunk(b"x" * 1000))
            await writer.drain()

    async with serving(serve) as url:
        answer = await post(client, url)
        with pytest.raises(UpstreamError, match="longer than 5000 bytes"):
            await answer.read(limit=5000)
        answer.close()


async def test_a_redirect_is_an_answer_and_not_followed(client: Upstream) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with serving(serve) as url:
        answer = await post(client, url)
        assert answer.status == 302
        answer.close()


@pytest.mark.parametrize(
    ("said", "sent"), [(b"", False), (b"HTTP/1.1 100 Continue\r\n\r\n", True)], ids=["silent", "continue"]
)
async def test_a_body_held_for_confirmation_is_sent_only_after_it(client: Upstream, said: bytes, sent: bool) -> None:
    received = b""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        if said:
            writer.write(said)
            received = await reader.readexactly(7)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    with pytest.raises(UpstreamError) as raised:
        await client.send("POST", url, headers={}, body=b'{"x":1}', timeout=TIMEOUT, confirm=True)
    assert raised.value.sent is sent
    assert received == (b'{"x":1}' if sent else b"")
    server.close()


async def test_connections_are_used_again(client: Upstream) -> None:
    connections = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            await reader.readexactly(7)
            writer.write(OK)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    for _ in range(3):
        answer = await post(client, URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        assert await answer.read() == b"ok"
        answer.close()
    assert connections == 1
    server.close()


async def test_requests_in_company_are_answered_each(client: Upstream) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()

    async def ask(url: URL) -> bytes:
        answer = await client.send("POST", url, headers={}, body=b"{}", timeout=TIMEOUT, in_company=True)
        return await answer.read()

    async with serving(serve) as url:
        assert await asyncio.gather(*(ask(url) for _ in range(20))) == [b"ok"] * 20


async def test_a_unix_socket_is_spoken_to_and_its_absence_means_not_sent(tmp_path: Path) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    path = tmp_path / "x.sock"
    client = Upstream(path)
    with pytest.raises(UpstreamError) as raised:
        await post(client, URL("http://host/runs"))
    assert raised.value.sent is False
    server = await asyncio.start_unix_server(connected, str(path))
    answer = await post(client, URL("http://host/runs"))
    assert await answer.read() == b"ok"
    answer.close()
    server.close()
    await client.close()


async def test_what_aiohttp_does_not_promise_to_keep_is_as_it_was(client: Upstream) -> None:
    """When this fails, aiohttp has moved what ``gateway/wire.py`` uses: the gateway goes on by its session, slower."""
    async with aiohttp.TCPConnector() as connector:
        assert missing(connector) is None


async def test_with_another_aiohttp_calls_go_by_its_session(client: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    monkeypatch.setattr("aiohttp.client_proto.ResponseHandler.set_response_params", lambda handler, renamed: None)
    async with aiohttp.TCPConnector() as connector:
        assert missing(connector) is not None
    monkeypatch.undo()
    monkeypatch.setattr("lockgate.gateway.upstream.missing", lambda connector: "TypeError: it moved")
    async with serving(ok) as url:
        assert await (await post(client, url)).read() == b"ok"
        with pytest.raises(UpstreamError) as raised:
            await post(client, url.with_port(1))
    assert not raised.value.sent
