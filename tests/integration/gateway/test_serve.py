"""The server on a real socket: real clients, hostile ones, those that do nothing, and its own end."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import resource
import socket
import struct
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import NoReturn

import aiohttp
import pytest

from lockgate.errors import InputError
from lockgate.gateway import http1, serve
from lockgate.gateway.http_request import AHEAD_BYTES, ClientGone, HttpRequest
from lockgate.gateway.serve import Server, listen
from lockgate.telemetry import logs

LIMIT = 20.0  # seconds after which a test hangs
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
PIECE = b"x" * 65536


async def app(request: HttpRequest) -> None:
    """Answers by the path."""
    match request.path:
        case "/unread":
            request.respond(401, [], b"who are you?")
        case "/stream":
            request.stream(200, [])
            for number in range(3):
                request.send(b"%d" % number)
                await asyncio.sleep(0)
        case "/broken":
            request.stream(200, [])
            request.send(b"begun")
            request.break_off()
        case _:
            try:
                body = await request.whole()
            except InputError:
                request.respond(400, [], b"no body")
            else:
                request.respond(200, [], f"{request.method} {request.path} ".encode() + body)


@asynccontextmanager
async def serving(application: Callable[[HttpRequest], Awaitable[None]] = app) -> AsyncIterator[tuple[Server, int]]:
    """A server and its port."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = Server(application, listener.detach())
    try:
        async with asyncio.timeout(LIMIT):
            yield server, port
    finally:
        if not server.stopping:
            await server.drain(0.0)


class Peer:
    """A client that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_endlessly(self) -> NoReturn:
        while True:
            await self.send(PIECE)

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """One answer of declared length."""
        head = await self.head()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + await self._reader.readexactly(int(length))

    async def some(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    async def rest(self) -> bytes:
        """What comes until the server ends the connection."""
        return await self._reader.read()

    def leave(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """As a client does that dies."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.close()


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def say(port: int, data: bytes) -> bytes:
    """All that the server has to say to that."""
    async with peer(port) as one:
        await one.send(data)
        return await one.rest()


async def rounds(count: int = 50) -> None:
    """So many of the event loop: more than a connection takes to be accepted and its request to be begun."""
    for _ in range(count):
        await asyncio.sleep(0)


class Held:
    """An application whose calls are under way until they are told to go on."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, request: HttpRequest) -> None:
        self._task = asyncio.current_task()
        request.watcher = self
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.set_result("cancelled")
            request.respond(503, [], b"cancelled")
        else:
            self.ended.set_result("answered")
            request.respond(200, [], b"ok")

    def cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()


# --- real clients ---------------------------------------------------------------------------------------------------


async def test_a_connection_serves_one_request_after_the_other() -> None:
    def talk(port: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        client.connect()
        connection = client.sock
        for number in range(3):
            client.request("POST", f"/{number}", b"body")
            assert client.getresponse().read() == b"POST /%d body" % number
        client.request("HEAD", "/")
        head = client.getresponse()
        assert (head.length, head.read()) == (0, b"")
        client.request("GET", "/stream")
        assert client.getresponse().read() == b"012"
        client.request("GET", "/end")
        assert client.getresponse().read() == b"GET /end "
        assert client.sock is connection
        client.close()

    async with serving() as (_, port):
        await asyncio.to_thread(talk, port)


async def test_urllib_is_served() -> None:
    def post(port: int) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/a%20b", b"body", LIMIT) as answer:
            whole: bytes = answer.read()
            return whole

    async with serving() as (_, port):
        assert await asyncio.to_thread(post, port) == b"POST /a b body"


async def test_aiohttp_is_served() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield PIECE

    async with serving() as (_, port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        async with client.post("/", data=parts()) as answer:  # chunked
            assert await answer.read() == b"POST / " + 20 * PIECE
        async with client.post("/", data=b"asked for", expect100=True) as answer:
            assert await answer.read() == b"POST / asked for"
        async with client.get("/stream") as answer:
            assert await answer.read() == b"012"


async def test_many_clients_are_served_at_once() -> None:
    async with serving() as (_, port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

        async def post(number: int) -> bytes:
            async with client.post(f"/{number}", data=PIECE) as answer:
                return await answer.read()

        answers = await asyncio.gather(*(post(number) for number in range(100)))
    assert answers == [b"POST /%d " % number + PIECE for number in range(100)]


# --- HTTP -----------------------------------------------------------------------------------------------------------


async def test_requests_sent_all_at_once_are_answered_in_their_order() -> None:
    async with serving() as (_, port):
        said = await say(port, GET + GET.replace(b"/", b"/stream", 1) + LAST_GET)
    first, stream, last = said.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.endswith(b"GET / ")
    assert stream.endswith(b"\r\n\r\n1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n")
    assert last.endswith(b"GET / ")
    assert [b"connection: close" in answer for answer in (first, stream, last)] == [False, False, True]


async def test_any_number_of_requests_may_be_sent_at_once() -> None:
    asked, count = GET.replace(b"x", b"x" * 200), 3000  # 700 KB: more than is read at a time
    async with serving() as (_, port), peer(port) as one:
        sending = asyncio.create_task(one.send(count * asked))
        for _ in range(count):
            assert (await one.answer()).endswith(b"GET / ")
        await sending


async def test_a_client_of_http_1_0_sees_the_end_of_its_answer_by_the_connections() -> None:
    async with serving() as (_, port):
        whole = await say(port, b"GET / HTTP/1.0\r\n\r\n")
        stream = await say(port, b"GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert whole.endswith(b"\r\n\r\nGET / ")
    assert stream.endswith(b"\r\n\r\n012")
    assert b"chunked" not in stream


async def test_a_client_that_asks_first_sends_its_body_when_it_may() -> None:
    async with serving() as (_, port), peer(port) as one:
        await one.send(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        assert await one.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await one.send(b"body")
        assert (await one.answer()).endswith(b"POST / body")


async def test_a_client_that_asks_first_is_spared_the_body_nobody_wants() -> None:
    async with serving() as (_, port):
        said = await say(port, b"POST /unread HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("framing", "body"), [(b"", b""), (b"content-length: 4\r\n", b"body"),
                          (b"transfer-encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n")],
)  # fmt: skip
async def test_who_offers_another_protocol_is_served_in_this_one(framing: bytes, body: bytes) -> None:
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    async with serving() as (_, port), peer(port) as one:
        for _ in range(2):  # and stays on its connection
            await one.send(b"POST /up HTTP/1.1\r\nhost: x\r\n" + offer + framing + b"\r\n" + body)
            answer = await one.answer()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"POST /up body" if body else b"POST /up ")


# --- what cannot be understood, or in two ways ----------------------------------------------------------------------

POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n" + CHUNKS,
        POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        POST + b"content-length: 3, 3\r\n\r\nabc",
        POST + b"content-length: +3\r\n\r\nabc",
        POST + b"content-length: -3\r\n\r\nabc",
        POST + b"content-length: 0x3\r\n\r\nabc",
        POST + b"content-length: 3 3\r\n\r\nabc",
        POST + b"content-length:\r\n\r\n",
        POST + b"content-length: 99999999999999999999\r\n\r\n",
        POST + b"content-length : 3\r\n\r\nabc",
        POST + b"transfer-encoding : chunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: identity\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: chunked, chunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: ,chunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: \x0bchunked\r\n\r\n" + CHUNKS,
        POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n" + CHUNKS,
        POST + b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: identity\r\n\r\n" + CHUNKS,
        b"GET / HTTP/1.1\r\nhost: x\r\nfolded: a\r\n b: c\r\n\r\n",
        b"GET / HTTP/1.1\r\n host: x\r\n\r\n",
        b"GET / HTTP/1.1\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\na: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\n\n",
        b"GET / HTTP/1.1\r\nhost: x\ra: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na(: x\r\n\r\n",
        b"GET / HTTP/1.2\r\nhost: x\r\n\r\n",
        b"GET /\tx HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_could_be_understood_in_two_ways_is_refused(data: bytes) -> None:
    served: list[str] = []

    async def note(request: HttpRequest) -> None:
        served.append(request.path)

    async with serving(note) as (_, port):
        said = await say(port, data + GET)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1  # nothing behind it is answered
    assert b"connection: close" in said
    assert served == []


@pytest.mark.parametrize(
    "body",
    [b"3\nabc\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcd\r\n", b"0x3\r\nabc\r\n", b"3 \r\nabc\r\n", b"-1\r\n", b"\r\n",
     b"fffffffffffffffff\r\nabc", b"3;a\nabc\r\n", b"0\r\ncontent-length: 3\r\n\r\nabc", b"3\r\nabc\r\n0\r\n\n"],
)  # fmt: skip
async def test_chunks_that_could_be_understood_in_two_ways_are_no_body(body: bytes) -> None:
    async with serving() as (_, port):
        said = await say(port, POST + b"transfer-encoding: chunked\r\n\r\n" + body + b"\r\n" + GET)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.endswith(b"\r\n\r\nno body")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a: %b\r\n" % (b"x" * 1000) * 70 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n",
    ],
)
async def test_a_head_that_is_too_long_is_refused(head: bytes) -> None:
    async with serving() as (_, port):
        assert (await say(port, head)).startswith(b"HTTP/1.1 431 ")


async def test_a_log_of_requests_says_what_was_refused_before_it_was_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lockgate.gateway.serve")
    async with serving() as (_, port):
        await say(port, b"GET\r\n\r\n")
    assert not caplog.messages
    monkeypatch.setenv(logs.REQUESTS_VARIABLE, "1")
    async with serving() as (_, port):
        await say(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n")
    [line] = caplog.messages
    assert "431" in line
    assert "100 headers" in line


async def test_who_speaks_http_2_is_told_that_by_its_name() -> None:
    async with serving() as (_, port):
        assert b"no HTTP/1.1: HTTP/2" in await say(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


async def test_who_sends_garbage_does_not_disturb_others() -> None:
    async with serving() as (server, port), peer(port) as good:

        async def disturb(number: int) -> None:
            async with peer(port) as bad:
                await bad.send([b"\0" * 1000, POST + b"content-length: 9\r\n\r\n", GET, b""][number % 4])
                bad.reset()

        for _ in range(10):
            await asyncio.gather(*(disturb(number) for number in range(8)))
            await good.send(GET)
            assert (await good.answer()).endswith(b"GET / ")
        good.leave()
        assert await server.drain(LIMIT)  # none of them is left


# --- clients that do nothing ----------------------------------------------------------------------------------------


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.0)
    async with serving() as (_, port):
        assert (await say(port, b"GET / HTTP/1.1\r\nho")).startswith(b"HTTP/1.1 408 ")
        assert await say(port, b"") == b""


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_SECONDS", 0.0)
    async with serving() as (_, port):
        assert (await say(port, GET)).endswith(b"GET / ")


@pytest.mark.parametrize("framing", [b"content-length: 400000000", b"transfer-encoding: chunked"])
async def test_who_still_sends_a_body_that_nobody_wants_can_read_its_answer(framing: bytes) -> None:
    async with serving() as (_, port), peer(port) as one:
        await one.send(b"POST /unread HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n" + b"186a0\r\n")
        for _ in range(100):
            await one.send(b"x" * 100_000)
        assert (await one.rest()).endswith(b"who are you?")


async def test_urllib_reads_the_answer_to_a_body_that_nobody_wanted() -> None:
    def post(port: int) -> bytes:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/unread", 160 * PIECE, LIMIT)
        with refused.value as answer:
            return answer.read()

    async with serving() as (_, port):
        assert await asyncio.to_thread(post, port) == b"who are you?"


async def test_who_sends_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LINGER_SECONDS", 0.0)
    async with serving() as (_, port), peer(port) as one:
        await one.send(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n")
        with pytest.raises(ConnectionError):
            await one.send_endlessly()


@pytest.mark.parametrize("how", [Peer.leave, Peer.reset])
@pytest.mark.parametrize(
    "data",
    [
        GET,
        POST + b"content-length: 9\r\n\r\n",
        # In these two nothing more is read of it.
        GET + GET,
        POST + b"content-length: 999999\r\n\r\n" + b"x" * (AHEAD_BYTES + 1),
    ],
    ids=["request", "no body", "two requests", "much of a body"],
)
async def test_a_client_that_leaves_ends_what_it_asked_for(how: Callable[[Peer], None], data: bytes) -> None:
    held = Held()
    async with serving(held) as (_, port), peer(port) as one:
        await one.send(data)
        await held.begun.wait()
        how(one)
        assert await held.ended == "cancelled"


class Endless:
    """An answer that goes on for as long as its client reads."""

    def __init__(self, pieces: int = 1_000_000) -> None:
        self._pieces = pieces
        self.waits = asyncio.Event()
        self.gave_up = asyncio.Event()

    async def __call__(self, request: HttpRequest) -> None:
        request.stream(200, [])
        try:
            for _ in range(self._pieces):
                if not request.send(PIECE):
                    self.waits.set()
                    await request.drained()
        except ClientGone:
            self.gave_up.set()


async def test_a_client_that_reads_slowly_is_waited_for() -> None:
    endless = Endless(pieces=500)
    async with (
        serving(endless) as (_, port),
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}") as answer,
    ):
        await endless.waits.wait()
        assert await answer.read() == 500 * PIECE


async def test_the_system_tells_how_much_a_client_has_read() -> None:
    endless = Endless()
    async with serving(endless) as (server, port), peer(port) as one:
        await one.send(GET)
        for _ in range(2):
            await one.some(400 * len(PIECE))  # far more than the buffers of both sides hold
        [connection] = server._connections
        assert 400 * len(PIECE) < http1._taken(connection._transport) < 1200 * len(PIECE)


async def test_a_client_that_does_not_read_is_cut_and_gets_no_whole_answer_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "READ_SECONDS", 0.0)
    endless = Endless()
    async with serving(endless) as (server, port), peer(port) as one:
        await one.send(GET)
        await endless.gave_up.wait()
        assert await server.drain(LIMIT)
        assert not (await one.rest()).endswith(b"0\r\n\r\n")


async def test_a_stream_that_is_broken_off_is_not_taken_for_a_whole_one() -> None:
    def get(port: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        client.request("GET", "/broken")
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()
        client.close()

    async with serving() as (_, port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        await asyncio.to_thread(get, port)
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get("/broken") as answer:
                await answer.read()


# --- the application's faults ---------------------------------------------------------------------------------------


async def test_a_header_that_would_become_another_one_is_not_sent() -> None:
    async def answer(request: HttpRequest) -> None:
        with pytest.raises(ValueError, match="line break"):
            request.respond(200, [("x", "a\r\nset-cookie: b")], b"")
        request.respond(500, [], b"not sent")

    async with serving(answer) as (_, port):
        said = await say(port, LAST_GET)
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in said


async def test_a_fault_in_the_middle_of_a_stream_breaks_it_off() -> None:
    async def fail(request: HttpRequest) -> None:
        request.stream(200, [])
        request.send(b"begun")
        raise ZeroDivisionError

    async with serving(fail) as (_, port):
        assert (await say(port, GET)).endswith(b"5\r\nbegun\r\n")


async def test_a_fault_before_an_answer_is_answered() -> None:
    async def fail(request: HttpRequest) -> None:
        raise ZeroDivisionError

    async with serving(fail) as (_, port), peer(port) as one:
        for _ in range(2):
            await one.send(GET)
            assert (await one.answer()).startswith(b"HTTP/1.1 500 ")


# --- how many, and the end ------------------------------------------------------------------------------------------


async def test_one_connection_more_than_there_may_be_waits_while_all_have_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "MAX_AT_ONCE", 2)
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def hold(request: HttpRequest) -> None:
        begun.release()
        await go.wait()
        await app(request)

    async with serving(hold) as (server, port), peer(port) as first, peer(port) as second:
        for one in (first, second):
            await one.send(GET)
            await begun.acquire()
        async with peer(port) as third:
            await third.send(GET)
            await rounds()
            assert server.under_way == 2
            go.set()
            for one in (first, second, third):
                assert (await one.answer()).endswith(b"GET / ")


async def test_who_was_idle_longest_makes_room_for_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MAX_AT_ONCE", 2)
    async with serving() as (_, port), peer(port) as first, peer(port) as second:
        for one in (first, second, first):
            await one.send(GET)
            await one.answer()
        async with peer(port) as third:
            await third.send(GET)
            assert (await third.answer()).endswith(b"GET / ")
            assert await second.rest() == b""
            await first.send(GET)
            assert (await first.answer()).endswith(b"GET / ")


def test_a_worker_may_have_more_files_open_than_it_was_begun_with() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        serve.allow_descriptors()
        assert serve.most_at_once() == serve.MAX_AT_ONCE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_leave_half_of_few_files_for_what_they_ask_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert serve.most_at_once() == 128
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


STARVED = """
import asyncio, os, resource, time, uvloop
from lockgate.gateway.serve import Server, listen

async def app(request):
    request.respond(200, [], b"%f" % time.process_time())

async def main():
    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    server = Server(app, listener.detach())
    while os.dup(0) < 30:  # fewer are left than it may have connections
        pass
    await asyncio.Event().wait()

uvloop.run(main())
"""


async def test_a_worker_without_descriptors_waits_for_some_and_serves_again() -> None:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", STARVED, stdout=PIPE, stderr=PIPE)
    assert worker.stdout is not None
    assert worker.stderr is not None
    try:
        async with asyncio.timeout(LIMIT), AsyncExitStack() as peers:
            port = int(await worker.stdout.readline())
            first, *others = [await peers.enter_async_context(peer(port)) for _ in range(50)]

            async def used() -> float:
                await first.send(GET)
                return float((await first.answer()).rpartition(b"\n")[2])

            assert b"Too many open files" in await worker.stderr.readline()
            started, before = monotonic(), await used()  # who is connected is served
            for _ in range(2):
                await worker.stderr.readline()  # it tries again, once a second
            seconds = monotonic() - started
            assert seconds > 0.5
            assert await used() - before < 0.5 * seconds
            for one in others[:-1]:
                one.leave()
            await others[-1].send(GET)
            await others[-1].answer()
    finally:
        worker.kill()
        await worker.wait()


async def test_siblings_share_what_connects_at_once() -> None:
    listener = listen("127.0.0.1", 0)
    port, second = listener.getsockname()[1], os.dup(listener.fileno())
    servers = [Server(app, descriptor, siblings=True) for descriptor in (listener.detach(), second)]
    async with AsyncExitStack() as peers:
        for one in [await peers.enter_async_context(peer(port)) for _ in range(6 * serve.FEW)]:
            await one.send(GET)
            await one.answer()
        assert min(len(server._connections) for server in servers) >= serve.FEW
    for server in servers:
        assert await server.drain(LIMIT)


async def test_a_drain_closes_what_is_idle_and_takes_nothing_new() -> None:
    stopped: list[bool] = []
    async with serving() as (server, port), peer(port) as one:
        await one.send(GET)
        await one.answer()
        draining = asyncio.create_task(server.drain(LIMIT, stopped=lambda: stopped.append(True)))
        assert await one.rest() == b""
        assert stopped == [True]
        one.leave()
        assert await draining
        with pytest.raises(ConnectionRefusedError):
            await say(port, GET)


async def test_a_request_that_comes_after_the_end_of_its_connection_does_not_reset_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "RECENT_SECONDS", 0.0)
    loop = asyncio.get_running_loop()
    async with serving() as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.setblocking(False)
            await loop.sock_sendall(one, GET)
            assert (await loop.sock_recv(one, 1000)).endswith(b"GET / ")
            draining = asyncio.create_task(server.drain(LIMIT))
            for _ in range(3):
                assert await loop.sock_recv(one, 1000) == b""
                await loop.sock_sendall(one, GET)
            assert not draining.done()
        assert await draining  # as soon as the client has left


async def test_a_request_that_is_on_its_way_when_the_server_stops_is_served() -> None:
    async with serving() as (server, port), peer(port) as new, peer(port) as begun:
        await begun.send(GET + GET[:9])
        await begun.answer()
        draining = asyncio.create_task(server.drain(LIMIT))
        await asyncio.sleep(0)
        await begun.send(GET[9:])
        await new.send(GET)
        for one in (begun, new):
            assert b"connection: close" in await one.rest()
            one.leave()
        assert await draining


async def test_a_call_under_way_gets_its_answer_from_a_server_that_stops() -> None:
    held = Held()
    async with serving(held) as (server, port), peer(port) as one:
        await one.send(GET)
        await held.begun.wait()
        assert server.under_way == 1
        draining = asyncio.create_task(server.drain(LIMIT))
        await asyncio.sleep(0)
        held.go.set()
        said = await one.rest()
        one.leave()
        assert await draining
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in said


async def test_a_call_that_does_not_end_is_cancelled_and_may_still_answer() -> None:
    held = Held()
    async with serving(held) as (server, port), peer(port) as one:
        await one.send(GET)
        await held.begun.wait()
        assert not await server.drain(0.01)
        assert (await one.rest()).startswith(b"HTTP/1.1 503 ")


async def test_a_stream_that_is_cancelled_is_not_taken_for_a_whole_one() -> None:
    begun = asyncio.Event()

    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        request.send(b"begun")
        begun.set()
        await asyncio.Event().wait()

    async with serving(stream) as (server, port), peer(port) as one:
        await one.send(GET)
        await begun.wait()
        assert not await server.drain(0.01)
        assert (await one.rest()).endswith(b"5\r\nbegun\r\n")


async def test_a_drain_does_not_wait_for_an_application_that_cannot_be_cancelled() -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def stubborn(request: HttpRequest) -> None:
        begun.set()
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    async with serving(stubborn) as (server, port), peer(port) as one:
        await one.send(GET)
        await begun.wait()
        assert not await server.drain(0.01)
        assert await one.rest() == b""
        go.set()
