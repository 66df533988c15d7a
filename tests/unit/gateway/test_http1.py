"""HTTP/1.1 with one client: what is parsed, what is written in which order, and what a client may not do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.gateway import http1, http_request
from lockgate.gateway.http1 import (
    AT_A_TIME,
    HEAD_SECONDS,
    IDLE_SECONDS,
    LINGER_SECONDS,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    READ_SECONDS,
    RECENT_SECONDS,
    Connection,
)
from lockgate.gateway.http_request import AHEAD_BYTES, AT_ONCE, ClientGone, HttpRequest

App = Callable[[HttpRequest], Awaitable[None]]

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: now\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\ndate: now\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ndate: now\r\n\r\n"


class Transport:
    """As strict as uvloop's."""

    def __init__(self) -> None:
        self.protocol: Connection | None = None
        self.written = b""
        self.unread = 0  # bytes that the system has not taken yet
        self.acknowledged = 0  # by the client's
        self.is_paused = self.is_ended = self.is_aborted = self._is_closing = False

    def write(self, data: bytes) -> None:
        if self.is_ended or self._is_closing:
            raise RuntimeError("written after the end")
        self.written += data

    def write_eof(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None:
        if self._is_closing:
            raise RuntimeError("it is closing")
        self.is_paused = True

    def resume_reading(self) -> None:
        if self._is_closing:
            raise RuntimeError("it is closing")
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str) -> Transport:
        return self

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        connected = b"\1"
        return (connected.ljust(120, b"\0") + self.acknowledged.to_bytes(8, sys.byteorder))[:size]

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.is_aborted = True
        self.close()


class Client:
    """A connection, its owner, and the other end of it."""

    def __init__(self, app: App) -> None:
        self.stopping = False
        self.date = "now"
        self.tasks: set[asyncio.Task[None]] = set()
        self.was_lost = False
        self._app = app
        self.transport = Transport()
        self.connection = self.transport.protocol = Connection(self, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)

    def start(self, request: HttpRequest) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _serve(self, request: HttpRequest) -> None:
        try:
            with suppress(ClientGone, InputError):
                await self._app(request)
        finally:
            request.end()

    def lost(self, connection: Connection) -> None:
        self.was_lost = True

    def refused(self, status: int, why: str) -> None:
        pass

    def send(self, data: bytes) -> None:
        assert not self.transport.is_paused
        self.connection.data_received(data)

    def leave(self) -> None:
        self.connection.eof_received()
        self.transport.close()

    async def answers(self) -> bytes:
        """What was written once nothing is under way."""
        while self.tasks:
            await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.sleep(0)
        return self.transport.written

    def wait(self, seconds: float) -> None:
        self.connection.look(monotonic() + seconds)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is said, to which the client may still listen; see ``transport.is_aborted``."""
        return self.transport.is_ended or self.transport.is_closing()


async def rounds(count: int = 4) -> None:
    """So many of the event loop: enough for a request to be begun, or to go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def ok(request: HttpRequest) -> None:
    request.respond(200, [], b"ok")


async def read(request: HttpRequest) -> None:
    request.respond(200, [], await request.whole())


async def ask(data: bytes, app: App = ok) -> bytes:
    client = Client(app)
    client.send(data)
    return await client.answers()


async def received(data: bytes) -> HttpRequest:
    """The request that the application sees."""
    seen: list[HttpRequest] = []

    async def note(request: HttpRequest) -> None:
        seen.append(request)
        request.respond(200, [], b"")

    assert (await ask(data, note)).startswith(b"HTTP/1.1 200 ")
    [request] = seen
    return request


class Held:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self._may = asyncio.Semaphore(0)

    async def __call__(self, request: HttpRequest) -> None:
        self.requests.append(request)
        await self._may.acquire()
        request.respond(200, [], b"ok")

    def go(self) -> None:
        self._may.release()


# --- requests -------------------------------------------------------------------------------------------------------


async def test_a_path_is_decoded_and_a_query_stays_as_it_is() -> None:
    request = await received(b"GET /a%20b/%C3%A9?c=%20d?e HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (request.method, request.path, request.query) == ("GET", "/a b/é", "c=%20d?e")


async def test_headers_sent_twice_are_joined_under_a_name_of_small_letters() -> None:
    sent = b"X-A: 1 \r\nx-a:\t2\r\nCookie: a=b\r\ncookie: c=d\r\nEmpty:\r\n\r\n"
    request = await received(b"GET / HTTP/1.1\r\nHost: x\r\n" + sent)
    assert request.headers == {"host": "x", "x-a": "1, 2", "cookie": "a=b; c=d", "empty": ""}


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://host/p?q", "/p", "q"),
        (b"http://host", "/", ""),
        (b"http://host?q=/admin", "/", "q=/admin"),
        (b"http://a@host:1/p//?q://", "/p//", "q://"),
    ],
)
async def test_a_target_as_proxies_are_asked_names_its_path(target: bytes, path: str, query: str) -> None:
    request = await received(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize("line", [b"OPTIONS *", b"CONNECT host:443", b"OPTIONS *?://a", b"GET /a#b", b"GET /a?b#/c"])
async def test_a_target_that_is_not_just_a_path_and_a_query_is_refused(line: bytes) -> None:
    assert (await ask(line + b" HTTP/1.1\r\nhost: x\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("target", [b"/a", b"http://host/a"])
async def test_no_tunnel_is_made(target: bytes) -> None:
    """Whoever asked for one would take all that follows an answer of 200 for what comes through it."""
    assert (await ask(b"CONNECT " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n" + GET)).startswith(b"HTTP/1.1 400 ")


async def test_two_hosts_are_refused() -> None:
    assert (await ask(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("target", [b"/", b"http://x/"])
async def test_a_request_that_names_no_host_is_refused(target: bytes) -> None:
    """RFC 9112, 3.2: also where the target names it."""
    assert (await ask(GET + b"GET " + target + b" HTTP/1.1\r\n\r\n")).startswith(OK + b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "host", [b"x", b"", b"x:80", b"x:", b"127.0.0.1:4000", b"[::1]:4000", b"a_b.c-d", b"xn--e1a.%41"]
)
async def test_a_host_may_have_a_port(host: bytes) -> None:
    assert await ask(b"GET / HTTP/1.1\r\nhost: " + host + b"\r\n\r\n") == OK


@pytest.mark.parametrize(
    "host", [b"x, y", b"x y", b"a@x", b"x/y", b"x:y", b"x:1:2", b"::1", b"[::1", b"x\xe9", b"http://x"]
)
async def test_what_cannot_be_a_host_is_refused(host: bytes) -> None:
    refused = await ask(GET + b"GET / HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
    assert refused.startswith(OK + b"HTTP/1.1 400 ")


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
@pytest.mark.parametrize("keeps", [b"", b"connection: keep-alive\r\n"])
async def test_a_version_that_is_not_spoken_is_refused(version: bytes, keeps: bytes) -> None:
    refused = await ask(b"GET / HTTP/" + version + b"\r\nhost: x\r\n" + keeps + b"\r\n")
    assert refused.startswith(b"HTTP/1.1 505 ")


async def test_what_stands_behind_a_body_is_no_header_of_its_request() -> None:
    request = await received(CHUNKED + b"0\r\nauthorization: Bearer x\r\nhost: a\r\n\r\n")
    assert request.headers == {"host": "x", "transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    ("head", "is_old", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n", False, True),
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", False, False),
        (b"GET / HTTP/1.0\r\n", True, False),
        (b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n", True, True),
        (b"GET / HTTP/1.0\r\nproxy-connection: keep-alive\r\n", True, True),
        # whoever passed it on may have seen its end elsewhere
        (b"GET / HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n", True, False),
    ],
)
async def test_an_old_client_is_known_and_who_wants_to_stay(head: bytes, is_old: bool, keeps: bool) -> None:
    request = await received(head + b"\r\n")
    assert (request.is_old, request.keeps) == (is_old, keeps)


@dataclass(frozen=True)
class Asked:
    """One request of a sequence, as bytes, and what has to be seen of it."""

    number: int
    body: bytes
    chunks: tuple[int, ...] | None
    """Where a body is cut into chunks; None for one of declared length."""
    more: bytes = b""
    """Headers that change nothing."""
    before: bytes = b""
    """An empty line before it."""

    def encoded(self) -> bytes:
        line = self.before + b"POST /%d HTTP/1.1\r\nHost: x\r\n" % self.number + self.more
        if self.chunks is None:
            return line + b"Content-Length: %d\r\n\r\n" % len(self.body) + self.body
        cuts = [0, *sorted(cut % (len(self.body) + 1) for cut in self.chunks), len(self.body)]
        parts = [self.body[start:end] for start, end in pairwise(cuts) if start < end]
        chunks = b"".join(b"%x;e=f\r\n%b\r\n" % (len(part), part) for part in parts)
        return line + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"

    def answer(self) -> bytes:
        match self.number % 3:
            case 0:
                head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ndate: now\r\n\r\n"
                body = b"%x\r\n%b\r\n" % (len(self.body), self.body) if self.body else b""
                return head + body + b"0\r\n\r\n"
            case _:
                return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ndate: now\r\n\r\n" % len(self.body) + self.body


async def echo(request: HttpRequest) -> None:
    """Send the body back: in a stream, at once, or at the end of the round, by the path."""
    body = await request.whole()
    match int(request.path[1:]) % 3:
        case 0:
            request.stream(200, [])
            request.send(body)
        case 1:
            request.respond(200, [], body)
        case _:
            request.respond(200, [], body, later=True)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
EXTRAS = st.sampled_from([b"", b"X-A: \r\nx-b:y \r\n", UPGRADE])
BODIES = st.binary(max_size=60) | st.just(OK) | st.just(GET + CHUNKED)
SEQUENCES = st.lists(
    st.builds(
        Asked,
        st.integers(0, 2),
        BODIES,
        st.none() | st.lists(st.integers(0, 60), max_size=4).map(tuple),
        EXTRAS,
        st.sampled_from([b"", b"\r\n"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(SEQUENCES, st.lists(st.integers(0, 2000), max_size=30), st.integers(1, 200))
@example([Asked(0, b"ab", None)], [49, 49], 1)  # nothing comes in the middle of a body
@example([Asked(2, b"a", None), Asked(1, b"b", (), UPGRADE), Asked(0, b"c", None)], [], 1)
def test_requests_cut_anywhere_are_answered_in_their_order(sequence: list[Asked], cuts: list[int], ahead: int) -> None:
    data = b"".join(asked.encoded() for asked in sequence)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]

    async def talk() -> bytes:
        client = Client(echo)
        for start, end in pairwise(places):
            while client.transport.is_paused:
                await rounds(1)
            client.send(data[start:end])
        return await client.answers()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_request, "AHEAD_BYTES", ahead)  # so that reading stops and goes on
        patch.setattr(http1, "AT_A_TIME", ahead)  # and parsing
        written = asyncio.run(asyncio.wait_for(talk(), 30))
    assert written == b"".join(asked.answer() for asked in sequence)


# --- bodies ---------------------------------------------------------------------------------------------------------


async def test_a_body_comes_in_parts_to_who_wants_parts() -> None:
    parts: list[bytes] = []

    async def take_parts(request: HttpRequest) -> None:
        while part := await request.more():
            parts.append(part)
        await ok(request)

    client = Client(take_parts)
    for piece in (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n", b"ab", b"cd"):
        client.send(piece)
        await rounds()
    assert await client.answers() == OK
    assert parts == [b"ab", b"cd"]


async def test_reading_stops_while_too_much_of_a_body_waits_to_be_taken() -> None:
    held = Held()
    client = Client(held)
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    await asyncio.sleep(0)
    client.send(b"x" * AHEAD_BYTES)
    assert client.transport.is_paused
    [request] = held.requests
    assert len(request.take()) == AHEAD_BYTES
    assert not client.transport.is_paused


async def test_small_parts_take_more_than_their_bytes() -> None:
    client = Client(Held())
    client.send(CHUNKED + b"1\r\nx\r\n" * (AHEAD_BYTES // 40))
    assert client.transport.is_paused


async def test_a_body_that_nobody_takes_does_not_keep_the_next_request_from_being_read() -> None:
    """All of it has come before reading could stop."""
    held = Held()
    client = Client(held)
    client.send(
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (AHEAD_BYTES + 1) + b"x" * (AHEAD_BYTES + 1)
    )
    held.go()
    assert await client.answers() == OK
    held.go()
    client.send(GET)
    assert await client.answers() == OK + OK


async def test_chunks_that_cannot_be_told_apart_are_no_body() -> None:
    async def read_it(request: HttpRequest) -> None:
        with pytest.raises(InputError):
            await request.whole()
        await ok(request)

    assert await ask(CHUNKED + b"3\r\nabc\r\nzz\r\n", read_it) == LAST


async def test_what_stands_behind_a_body_does_not_fill_the_memory() -> None:
    async def read_it(request: HttpRequest) -> None:
        with pytest.raises(InputError, match="headers"):
            await request.whole()
        await ok(request)

    client = Client(read_it)
    client.send(CHUNKED + b"0\r\n")
    for _ in range(MAX_HEAD_BYTES // 1000 + 1):
        client.send(b"x" * 1000)
    assert await client.answers() == LAST


async def test_nothing_that_comes_after_the_answer_is_kept() -> None:
    held = Held()
    client = Client(held)
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    held.go()
    await client.answers()
    client.send(b"x" * 500_000)
    assert held.requests[0].take() == b""
    assert not client.transport.is_paused


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n"


async def test_a_client_that_asks_first_is_told_to_go_on_when_its_body_is_wanted() -> None:
    client = Client(read)
    client.send(EXPECT)
    await asyncio.sleep(0)
    assert client.transport.written == CONTINUE
    client.send(b"abc")
    assert await client.answers() == CONTINUE + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ndate: now\r\n\r\nabc"


@pytest.mark.parametrize(
    "data",
    [EXPECT + b"abc", EXPECT.replace(b"100-", b"200-"), EXPECT.replace(b"1.1", b"1.0")],
    ids=["its body has come", "it asks for something else", "HTTP/1.0 knows no such answer"],
)
async def test_no_other_client_is_told_to_go_on(data: bytes) -> None:
    client = Client(read)
    client.send(data)
    await rounds()
    assert CONTINUE not in client.transport.written


async def test_no_client_is_told_to_go_on_in_the_middle_of_its_answer() -> None:
    async def answer_first(request: HttpRequest) -> None:
        request.stream(200, [])
        await request.more()

    client = Client(answer_first)
    client.send(EXPECT)
    await asyncio.sleep(0)
    assert CONTINUE not in client.transport.written
    client.leave()
    await client.answers()


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_has_no_length_and_no_chunks(status: int) -> None:
    async def stream(request: HttpRequest) -> None:
        request.stream(status, [])
        request.send(b"x")

    async def respond(request: HttpRequest) -> None:
        request.respond(status, [], b"x")

    streamed, whole = await ask(GET, stream), await ask(GET, respond)
    assert streamed == whole
    assert whole.partition(b"\r\n")[2] == b"date: now\r\n\r\n"


async def test_head_is_answered_by_a_head() -> None:
    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        request.send(b"x")

    head = GET.replace(b"GET", b"HEAD")
    assert await ask(head) == OK.removesuffix(b"ok").replace(b"content-length: 2\r\n", b"")
    assert await ask(head, stream) == STREAM


async def test_a_large_answer_goes_out_whole() -> None:
    async def answer(request: HttpRequest) -> None:
        request.respond(200, [], b"x" * (AT_ONCE + 1))

    assert (await ask(GET, answer)).endswith(b"\r\n\r\n" + b"x" * (AT_ONCE + 1))


async def test_a_status_without_a_name_goes_out_without_one() -> None:
    async def answer(request: HttpRequest) -> None:
        request.respond(299, [("a", "b")], b"")

    assert await ask(GET, answer) == b"HTTP/1.1 299 \r\na: b\r\ncontent-length: 0\r\ndate: now\r\n\r\n"


@pytest.mark.parametrize("bad", ["a\r\nb: c", "a\nb", "a\rb", "a\0"])
async def test_a_header_that_would_become_another_one_is_not_sent(bad: str) -> None:
    async def answer(request: HttpRequest) -> None:
        for header in ((bad, "x"), ("x", bad)):
            with pytest.raises(ValueError, match="line break"):
                request.respond(200, [header], b"")
            with pytest.raises(ValueError, match="line break"):
                request.stream(200, [header])
        request.respond(200, [("x", "é\u010a\u560d")], b"ok")  # which latin-1 has not may not become a line break

    assert await ask(GET, answer) == OK.replace(b"OK\r\n", b"OK\r\nx: \xe9??\r\n")


async def test_a_request_has_one_answer() -> None:
    async def twice(request: HttpRequest) -> None:
        await ok(request)
        with pytest.raises(RuntimeError, match="one answer"):
            await ok(request)

    assert await ask(GET, twice) == OK


async def test_an_application_without_an_answer_is_answered_for() -> None:
    async def nothing(request: HttpRequest) -> None:
        pass

    assert (await ask(GET, nothing)).startswith(b"HTTP/1.1 500 ")


async def test_a_stream_is_chunks_and_an_empty_piece_is_not_its_end() -> None:
    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        for piece in (b"a", b"", b"x" * 17):
            assert request.send(piece)

    assert await ask(GET, stream) == STREAM + b"1\r\na\r\n" + b"11\r\n" + b"x" * 17 + b"\r\n" + b"0\r\n\r\n"


async def test_an_old_client_sees_a_streams_end_by_that_of_its_connection() -> None:
    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        request.send(b"a")
        request.send(b"b")

    client = Client(stream)
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert await client.answers() == b"HTTP/1.1 200 OK\r\nconnection: close\r\ndate: now\r\n\r\nab"
    assert client.is_closed


async def test_an_old_client_that_wants_to_stay_is_told_that_it_may() -> None:
    client = Client(ok)
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert await client.answers() == OK.replace(b"date", b"connection: keep-alive\r\ndate")
    assert not client.is_closed


async def test_a_stream_that_is_broken_off_has_no_end() -> None:
    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        request.send(b"a")
        request.break_off()

    client = Client(stream)
    client.send(GET)
    assert await client.answers() == STREAM + b"1\r\na\r\n"
    assert client.is_closed


@pytest.mark.parametrize("later", [False, True])
async def test_a_whole_answer_cannot_be_broken_off(later: bool) -> None:
    async def answer(request: HttpRequest) -> None:
        request.respond(200, [], b"ok", later)
        request.break_off()

    client = Client(answer)
    client.send(GET)
    assert await client.answers() == OK
    assert not client.is_closed


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    going_on = asyncio.Event()

    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        client.connection.pause_writing()
        assert not request.send(b"a")
        await request.drained()
        assert request.send(b"b")
        going_on.set()

    client = Client(stream)
    client.send(GET)
    await asyncio.sleep(0)
    assert not going_on.is_set()
    client.connection.resume_writing()
    assert (await client.answers()).endswith(b"1\r\nb\r\n0\r\n\r\n")


async def test_a_client_that_reads_nothing_of_a_stream_is_cut() -> None:
    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        client.connection.pause_writing()
        request.send(b"a")
        with pytest.raises(ClientGone):
            await request.drained()

    client = Client(stream)
    client.send(GET)
    await rounds()
    client.transport.unread = client.transport.acknowledged = 1
    client.wait(2 * READ_SECONDS)  # it is looked at for the first time
    client.wait(3 * READ_SECONDS - 1)
    assert not client.is_closed
    client.wait(3 * READ_SECONDS + 1)
    assert client.transport.is_aborted
    assert await client.answers() == STREAM + b"1\r\na\r\n"


async def test_a_client_that_reads_a_stream_slowly_is_waited_for() -> None:
    """Its system tells that it reads; ours makes room for more in large steps only."""

    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        client.connection.pause_writing()
        request.send(b"a")
        await request.drained()

    client = Client(stream)
    client.send(GET)
    await rounds()
    client.transport.unread = 100_000
    for minute in range(10):
        client.transport.acknowledged += 1
        client.wait(minute * (READ_SECONDS + 1))
    assert not client.is_closed
    client.connection.resume_writing()
    assert await client.answers() == STREAM + b"1\r\na\r\n0\r\n\r\n"


async def test_a_client_may_leave_little_of_a_stream_unread() -> None:
    """Nothing waits for it: the stream goes on."""
    go = asyncio.Event()

    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        await go.wait()

    client = Client(stream)
    client.send(GET)
    await rounds()
    client.transport.unread = 1
    client.wait(0)
    client.wait(10 * READ_SECONDS)
    go.set()
    assert await client.answers() == STREAM + b"0\r\n\r\n"


# --- answers at the end of a round ----------------------------------------------------------------------------------


async def later(request: HttpRequest) -> None:
    request.respond(200, [], b"ok", later=True)


async def test_an_answer_that_may_wait_goes_out_at_the_end_of_the_round() -> None:
    client = Client(later)
    client.send(GET)
    client.connection.loop.call_soon(lambda: written.append(client.transport.written))  # behind it in its round
    written: list[bytes] = []
    assert await client.answers() == OK
    assert written == [b""]


async def test_an_answer_that_waits_goes_out_before_the_refusal_of_what_came_behind_it() -> None:
    answers = await ask(GET + b"\0\0", later)
    assert answers.startswith(OK + b"HTTP/1.1 400 ")


async def test_an_answer_that_waits_goes_out_although_the_server_stops_in_the_same_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer_and_stop(request: HttpRequest) -> None:
        await later(request)
        asyncio.get_running_loop().call_soon(client.connection.stop)

    monkeypatch.setattr(http1, "RECENT_SECONDS", 0.0)
    client = Client(answer_and_stop)
    client.send(GET)
    assert await client.answers() == OK
    await asyncio.sleep(0)
    assert client.is_closed


async def test_an_answer_that_waits_is_dropped_with_its_client() -> None:
    client = Client(later)
    client.send(GET)
    client.leave()
    assert await client.answers() == b""


# --- one after the other --------------------------------------------------------------------------------------------


async def test_reading_stops_while_a_request_waits_for_its_turn() -> None:
    held = Held()
    client = Client(held)
    client.send(GET + GET)
    assert client.transport.is_paused
    held.go()
    await rounds()
    assert len(held.requests) == 2
    held.go()
    assert await client.answers() == OK + OK
    assert not client.transport.is_paused


@pytest.mark.parametrize(
    "first",
    [
        GET,
        CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (3 * AT_A_TIME) + bytes(3 * AT_A_TIME),
    ],
    ids=["nothing", "chunks", "a long body"],
)
async def test_of_requests_sent_at_once_few_are_kept_before_their_turn(first: bytes) -> None:
    count = 10 * AT_A_TIME // len(GET)
    client = Client(ok)
    client.send(first + GET * count)
    assert client.transport.is_paused
    most = 0
    while client.tasks:
        most = max(most, len(client.connection._waiting))
        await rounds(1)
    assert 0 < most <= AT_A_TIME // len(GET) + 1
    assert await client.answers() == OK * (1 + count)
    assert not client.transport.is_paused
    assert not client.connection._rest


async def test_what_was_not_parsed_is_dropped_with_its_client() -> None:
    held = Held()
    client = Client(held)
    client.send(GET * AT_A_TIME)
    await rounds()
    client.leave()
    held.go()
    await client.answers()
    assert len(held.requests) == 1
    assert not client.connection._rest


async def test_what_was_not_parsed_is_dropped_with_the_last_answer() -> None:
    client = Client(ok)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + GET * AT_A_TIME)
    assert await client.answers() == LAST
    assert not client.connection._rest


async def test_offers_of_another_protocol_may_come_all_at_once() -> None:
    asked = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    assert await ask(asked * 5000) == OK * 5000


async def test_requests_of_a_client_that_does_not_read_its_answers_are_not_served() -> None:
    """It could have any number of answers kept for it."""
    client = Client(ok)
    client.connection.pause_writing()
    client.send(GET + GET)
    assert client.transport.is_paused
    assert not client.tasks
    client.connection.resume_writing()
    assert await client.answers() == OK + OK
    assert not client.transport.is_paused


async def test_the_second_answer_waits_for_the_first_to_be_read() -> None:
    async def fill(request: HttpRequest) -> None:
        client.connection.pause_writing()
        await ok(request)

    client = Client(fill)
    client.send(GET + GET + b"\0")
    assert await client.answers() == OK
    client.connection.resume_writing()
    assert (await client.answers()).startswith(OK + OK + b"HTTP/1.1 400 ")


async def test_a_client_that_reads_no_answer_is_cut_in_the_end() -> None:
    client = Client(ok)
    client.connection.pause_writing()
    client.transport.unread = 1
    client.send(GET + b"GE")
    client.wait(0)
    client.wait(READ_SECONDS - 1)
    assert not client.is_closed
    client.wait(READ_SECONDS + 1)
    assert client.transport.is_aborted
    assert await client.answers() == b""


async def test_who_waits_for_an_answer_gets_it_before_what_came_behind_it_is_refused() -> None:
    held = Held()
    client = Client(held)
    client.send(GET + b"\0\0")
    client.send(b"more of that")
    assert client.transport.written == b""
    held.go()
    assert (await client.answers()).startswith(OK + b"HTTP/1.1 400 ")
    assert client.transport.is_ended


async def test_an_answer_that_is_its_connections_last_can_be_read_although_more_requests_came() -> None:
    """A connection that is closed with something unread is reset, and what was under way is lost."""
    client = Client(ok)
    client.stopping = True
    client.send(GET + GET)
    assert await client.answers() == LAST
    assert client.transport.is_ended
    assert not client.transport.is_closing()
    assert not client.transport.is_paused


# --- the client leaves ----------------------------------------------------------------------------------------------


class Watcher:
    was_told = False

    def cancel(self) -> None:
        self.was_told = True


async def test_who_watches_is_told_at_once_that_the_client_left() -> None:
    held, watcher = Held(), Watcher()
    client = Client(held)
    client.send(GET + GET)
    await asyncio.sleep(0)
    [request] = held.requests
    request.watcher = watcher
    client.connection.connection_lost(ConnectionResetError())
    assert watcher.was_told
    assert request.is_gone
    with pytest.raises(ClientGone):
        request.send(b"x")
    held.go()
    assert await client.answers() == b""
    assert len(held.requests) == 1  # nobody is there for the second
    assert client.was_lost


async def test_who_reads_the_body_of_a_client_that_left_is_told() -> None:
    gone = asyncio.Event()

    async def read_it(request: HttpRequest) -> None:
        with pytest.raises(ClientGone):
            await request.whole()
        gone.set()

    client = Client(read_it)
    client.send(POST[:-1])
    await asyncio.sleep(0)
    client.leave()
    await client.answers()
    assert gone.is_set()


async def test_who_waits_for_a_client_that_left_is_told() -> None:
    gone = asyncio.Event()

    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        client.connection.pause_writing()
        request.send(b"a")
        with pytest.raises(ClientGone):
            await request.drained()
        gone.set()

    client = Client(stream)
    client.send(GET)
    await asyncio.sleep(0)
    client.leave()
    await client.answers()
    assert gone.is_set()


async def test_an_unread_body_does_not_take_the_answer_with_it() -> None:
    client = Client(ok)
    client.send(POST[:-1])
    assert await client.answers() == LAST
    assert client.transport.is_ended
    assert not client.transport.is_closing()
    client.send(b"c" + GET)  # is not looked at
    assert await client.answers() == LAST
    client.wait(LINGER_SECONDS + 1)
    assert client.transport.is_aborted


async def test_a_last_answer_may_be_read_as_slowly_as_it_is_read_at_all() -> None:
    client = Client(ok)
    client.send(POST[:-1])
    await client.answers()
    client.transport.unread = 2
    client.wait(READ_SECONDS - 1)
    client.transport.unread = 1
    client.wait(2 * READ_SECONDS - 2)
    client.wait(3 * READ_SECONDS - 3)
    assert not client.transport.is_closing()
    client.wait(3 * READ_SECONDS)
    assert client.transport.is_aborted


# --- limits ---------------------------------------------------------------------------------------------------------

LONG = b"x" * (MAX_HEAD_BYTES + 1)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + LONG,
        b"GET /" + LONG + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\na: " + LONG + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + LONG + b": a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: %b\r\n" % (b"x" * 999) * (MAX_HEAD_BYTES // 1000 + 1) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    ],
    ids=["endless target", "target", "value", "name", "values", "fields"],
)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
async def test_a_head_that_is_too_long_is_refused(head: bytes, before: bytes) -> None:
    client = Client(ok)
    client.send(before)
    answered = await client.answers()
    client.send(head)
    assert (await client.answers()).startswith(answered + b"HTTP/1.1 431 ")
    assert client.transport.is_ended


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nname", b"GET / HTTP/1.1\r\nname: ", b"\r\n", GET + b"\r\n"])
async def test_a_head_that_never_ends_is_refused(start: bytes) -> None:
    client = Client(ok)
    client.send(start)
    piece = b"\r\n" * 500 if start.endswith(b"\n") else b"x" * 1000
    for _ in range(MAX_HEAD_BYTES // 1000 + 1):
        client.send(piece)
    assert b"HTTP/1.1 431 " in await client.answers()


@pytest.mark.parametrize("cut", [0, 5])
async def test_a_long_body_is_not_taken_for_a_long_head(cut: int) -> None:
    """The head before it and the one behind it came in the same pieces."""
    data = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (2 * MAX_HEAD_BYTES) + b"x" * (
        2 * MAX_HEAD_BYTES
    )
    client = Client(ok)
    client.send(data[:cut])
    client.send(data[cut:] + GET[:9])
    assert await client.answers() == OK
    client.send(GET[9:])
    assert await client.answers() == OK + OK


# --- time -----------------------------------------------------------------------------------------------------------


async def test_a_client_that_says_nothing_is_let_go() -> None:
    client = Client(ok)
    client.wait(HEAD_SECONDS - 1)
    assert not client.is_closed
    client.wait(HEAD_SECONDS + 1)
    assert client.transport.written == b""
    assert client.is_closed


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
async def test_a_head_that_comes_too_slowly_is_refused(before: bytes) -> None:
    client = Client(ok)
    client.send(before + b"GET / HTTP/1.1\r\nhost")
    answered = await client.answers()
    client.wait(HEAD_SECONDS - 1)
    assert client.transport.written == answered
    client.wait(HEAD_SECONDS + 1)
    assert client.transport.written.startswith(answered + b"HTTP/1.1 408 ")
    assert client.transport.is_ended


async def test_a_client_that_asks_for_nothing_more_is_let_go() -> None:
    client = Client(ok)
    client.send(GET)
    await client.answers()
    client.wait(IDLE_SECONDS - 1)
    assert not client.is_closed
    client.wait(IDLE_SECONDS + 1)
    assert client.is_closed


async def test_a_request_that_comes_too_late_is_thrown_away_and_not_reset() -> None:
    client = Client(ok)
    client.send(GET)
    await client.answers()
    client.wait(IDLE_SECONDS + 1)
    assert client.transport.is_ended
    client.send(GET)
    client.wait(LINGER_SECONDS - 1)
    assert not client.transport.is_closing()
    assert await client.answers() == OK
    client.wait(LINGER_SECONDS + 1)
    assert client.transport.is_aborted


@pytest.mark.parametrize("more", [b"", GET])
async def test_only_a_client_that_said_so_is_known_to_send_nothing_more(more: bytes) -> None:
    client = Client(ok)
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + more)
    assert (await client.answers()).startswith(LAST)
    assert client.transport.is_closing() == (not more)  # as who sends it all the same shows


async def test_who_is_told_that_the_connection_ends_is_the_first_to_make_room() -> None:
    client = Client(ok)
    client.send(b"\0")
    assert client.is_closed
    assert client.connection.idle_since is not None
    client.connection.stop()  # is not told twice
    assert await client.answers() == client.transport.written


async def test_a_client_that_waits_for_its_answer_may_wait_for_long() -> None:
    held = Held()
    client = Client(held)
    client.send(POST[:-1])
    client.wait(10 * IDLE_SECONDS)
    held.go()
    assert await client.answers() == LAST


async def test_a_connection_that_is_idle_ends_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "RECENT_SECONDS", 0.0)
    client = Client(ok)
    client.send(GET)
    await client.answers()
    client.stopping = True
    client.connection.stop()
    assert client.is_closed


@pytest.mark.parametrize("begun", [b"", b"GE"])
@pytest.mark.parametrize("before", [b"", GET], ids=["new", "used"])
async def test_a_request_that_is_on_its_way_is_served_by_a_server_that_stops(before: bytes, begun: bytes) -> None:
    client = Client(ok)
    client.send(before)
    answered = await client.answers()
    client.send(begun)
    client.stopping = True
    client.connection.stop()
    assert not client.is_closed
    client.send(GET.removeprefix(begun))
    assert await client.answers() == answered + LAST
    assert client.is_closed


async def test_after_a_stream_that_did_not_say_so_a_server_that_stops_serves_one_more_request() -> None:
    go = asyncio.Event()

    async def stream(request: HttpRequest) -> None:
        request.stream(200, [])
        await go.wait()

    client = Client(stream)
    client.send(GET)
    await rounds()
    client.stopping = True
    client.connection.stop()
    go.set()
    assert (await client.answers()).endswith(b"0\r\n\r\n")
    assert not client.is_closed
    client.send(GET)
    assert b"connection: close" in await client.answers()
    assert client.is_closed


async def test_a_server_that_stops_does_not_wait_long_for_who_says_nothing() -> None:
    client = Client(ok)
    client.stopping = True
    client.connection.stop()
    client.wait(RECENT_SECONDS + 0.1)
    assert client.is_closed


async def test_a_request_under_way_ends_its_connection_when_the_server_stops() -> None:
    held = Held()
    client = Client(held)
    client.send(GET)
    client.stopping = True
    client.connection.stop()
    assert not client.is_closed
    held.go()
    assert await client.answers() == LAST
    assert client.is_closed
