"""HTTP/1.1 with one client: requests parsed as they come, answers written, all on the event loop's own thread."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections import deque
from http import HTTPStatus
from time import monotonic
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote_to_bytes

import httptools

from lockgate.errors import InputError
from lockgate.gateway.headers import Headers as Headers
from lockgate.gateway.headers import field_lines

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a request's line and headers together."""
MAX_FIELDS = 100
"""Header fields of a request."""
AT_A_TIME = 32 * 1024
"""Bytes that are parsed before a look whether a request waits for its turn; as many may wait as these hold."""
AHEAD_BYTES = 256 * 1024
"""Bytes of a body that are read before anybody asks for them."""
AT_ONCE = 64 * 1024
"""Bytes of an answer's body up to which it leaves in one piece with the headers."""
HEAD_SECONDS = 10.0
"""Seconds a client may take for a request's line and headers."""
IDLE_SECONDS = 75.0
"""Seconds a connection stays open without a request."""
READ_SECONDS = 60.0
"""Seconds a client may read nothing of what waits for it."""
RECENT_SECONDS = 1.0
"""Seconds after it was opened, or had its last answer, that a connection may bring another request to a server that
stops: the client may have sent it by then."""
LINGER_SECONDS = 2.0
"""Seconds that a client which may still send gets to see that the connection ends, before it is closed."""

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_PART_BYTES = 48  # what a piece of a body takes beside its own bytes
_BODILESS = frozenset((204, 304))
_HEAD_END = b"\r\n\r\n"
_FRAMING = ("content-length", "transfer-encoding")
_HOST = re.compile(r"(?:\[[\w:.%~!$&'()*+,;=-]+\]|[\w.%~!$&'()*+,;=-]*)(?::[0-9]*)?", re.ASCII)  # RFC 9110, 7.2
_LEFT = (b"\x07", b"\x08")  # of TCP's states: reset, and ended by the other side
_HTTP_2 = b"PRI * HTTP/2"  # what a client says first that knows beforehand
_TOO_LONG = f"the request has more than {MAX_FIELDS} headers, or more than {MAX_HEAD_BYTES} bytes of them"
_NAMES = {
    name.encode(): name.lower()
    for name in ("host", "Host", "authorization", "Authorization", "content-type", "Content-Type", "content-length",
                 "Content-Length", "accept", "Accept", "accept-encoding", "Accept-Encoding", "user-agent",
                 "User-Agent", "connection", "Connection", "traceparent", "x-api-key")
}  # fmt: skip
"""What most clients send, so that it is not decoded for each of them."""


class ClientGone(Exception):
    """The client left before it had its answer. Not an error of ours: nobody is there to be told."""


class Watcher(Protocol):
    """Who wants to be told that a client left."""

    def cancel(self) -> None: ...


class Owner(Protocol):
    """Whoever has the connections."""

    stopping: bool
    """Whether an answer is its connection's last."""
    date: str
    """Now, as a header says it."""

    def start(self, request: HttpRequest) -> asyncio.Task[None]: ...

    def lost(self, connection: Connection) -> None: ...

    def refused(self, status: int, why: str) -> None: ...


class HttpRequest:
    """One request, its body as it comes, and the way back."""

    def __init__(self, connection: Connection, method: str, path: str, query: str, headers: dict[str, str]) -> None:
        self.connection = connection
        self.method = method
        self.path = path
        """Decoded."""
        self.query = query
        """As it was sent."""
        self.headers = headers
        """By lower-case name; what was sent twice is joined, as RFC 9110 (5.3) joins it."""
        self.is_old = False
        """Whether it is of HTTP/1.0."""
        self.keeps = True
        """Whether the client wants to send another one after it."""
        self.is_complete = False
        """Whether all of the body is there."""
        self.is_gone = False
        """Whether the client has left."""
        self.watcher: Watcher | None = None
        """Told when the client leaves."""
        self.ahead = 0
        """Bytes that what has come of the body takes until somebody takes it."""
        self.received = 0
        """Bytes of the body that have come."""
        self._is_answered = False
        self._has_body = True  # the answer
        self._is_stream = False
        self._is_last = False  # on its connection
        self._is_broken = False
        self._is_awaited = "expect" in headers  # the client asks whether to send the body
        self._parts: list[bytes] = []
        self._error: Exception | None = None
        self._coming: asyncio.Future[None] | None = None

    # --- the body ---------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        parts = self._parts
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        was_ahead, self.ahead = self.ahead, 0
        if was_ahead > AHEAD_BYTES:
            self.connection.regulate()
        return taken

    async def more(self) -> bytes:
        """The body's next bytes; none at its end. Raises :class:`ClientGone`, and :class:`InputError` for a body
        that is none: chunks that cannot be told apart."""
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return b""
            await self._wait()
        return self.take()

    async def whole(self) -> bytes:
        """All of the body, however long. Raises as :meth:`more` does."""
        if self.is_complete:
            return self.take()
        whole = bytearray()
        while part := await self.more():
            whole += part
        return bytes(whole)

    async def _wait(self) -> None:
        if self._is_awaited:
            self._is_awaited = False
            if not (self.is_old or self._is_answered) and self.headers["expect"].lower() == "100-continue":
                self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._coming = coming = self.connection.loop.create_future()
        try:
            await coming
        finally:
            self._coming = None

    def feed(self, data: bytes) -> None:
        self.received += len(data)
        if self._is_answered or not data:
            return  # nobody will ask for it, or would take it for the end
        self._parts.append(data)
        self.ahead += len(data) + _PART_BYTES
        if self.ahead > AHEAD_BYTES:
            self.connection.regulate()
        self._wake()

    def complete(self) -> None:
        self.is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """There will be no more of it."""
        self._error = error
        self._wake()

    def leave(self) -> None:
        """The client has left."""
        self.is_gone = True
        self.fail(ClientGone())
        if self.watcher is not None:
            self.watcher.cancel()

    def _wake(self) -> None:
        if self._coming is not None and not self._coming.done():
            self._coming.set_result(None)

    # --- the answer -------------------------------------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes, later: bool = False) -> None:
        """The whole answer. ``later``: at the end of this round of the event loop, with those of other requests."""
        length = f"content-length: {len(body)}\r\n" if self._sends_body(status) else ""
        head = self._head(status, headers, length)
        if not self._has_body:
            self.connection.write(head)
        elif len(body) > AT_ONCE:
            self.connection.write(head)
            self.connection.write(body)
        elif later:
            self.connection.write_later(head + body)
        else:
            self.connection.write(head + body)

    def stream(self, status: int, headers: Headers) -> None:
        """The head of an answer that is sent in pieces."""
        if self.is_old:  # it ends where the connection does
            self.keeps = False
        is_chunked = not self.is_old and status not in _BODILESS
        head = self._head(status, headers, "transfer-encoding: chunked\r\n" if is_chunked else "")
        self._is_stream = True
        self.connection.write(head)

    def send(self, piece: bytes) -> bool:
        """False when the client had better read first, see :meth:`drained`. Raises :class:`ClientGone`."""
        if self.is_gone:
            raise ClientGone
        connection = self.connection
        if piece and self._has_body:
            connection.write(piece if self.is_old else b"%x\r\n%b\r\n" % (len(piece), piece))
        return not connection.is_full

    async def drained(self) -> None:
        """When the client has read most of what was sent. Raises :class:`ClientGone`, also for a client that reads
        nothing for :data:`READ_SECONDS`."""
        await self.connection.drained()
        if self.is_gone:
            raise ClientGone

    def break_off(self) -> None:
        """A stream that cannot be brought to its end: the client is to see that."""
        if self._is_stream:
            self._is_broken = self._is_last = True

    def end(self) -> None:
        """The application is done with it."""
        if not self._is_answered:  # which ought not to be
            self.respond(500, [], b"")
        elif self._is_stream and self._has_body and not (self._is_broken or self.is_old):
            self.connection.write(b"0\r\n\r\n")
        self.connection.ended(close=self._is_last)

    def _sends_body(self, status: int) -> bool:
        return self.method != "HEAD" and status not in _BODILESS

    def _head(self, status: int, headers: Headers, framing: str) -> bytes:
        if self._is_answered:
            raise RuntimeError("a request has one answer")
        lines = field_lines(headers)
        self._is_answered = True
        self._has_body = self._sends_body(status)
        owner = self.connection.owner
        self._is_last = not self.keeps or owner.stopping or not self.is_complete
        if self._is_last:
            framing += "connection: close\r\n"
        elif self.is_old:
            framing += "connection: keep-alive\r\n"
        line = _STATUS.get(status) or f"HTTP/1.1 {status} \r\n"
        return f"{line}{lines}{framing}date: {owner.date}\r\n\r\n".encode("latin-1", "replace")


class Connection:
    """One client's (an asyncio protocol). Requests are served one after the other."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.loop = loop
        self.is_full = False
        """Whether the client ought to read before more is written."""
        self._since = monotonic()  # when what it does now began
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._target = b""
        self._fields: dict[str, str] = {}
        self._host = ""  # of its last request
        self._is_new = True  # no request has begun
        self._is_in_head = False
        self._field_count = 0
        self._head_bytes = 0  # of the request's line and the fields so far
        self._has_told = False  # the parser, of a new request or more of a body
        self._untold = 0  # bytes since then: of a head, or of what stands between and behind a body's chunks
        self._upgrade: HttpRequest | None = None
        self._arriving: HttpRequest | None = None
        self._serving: HttpRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[HttpRequest] = deque()
        self._refusal: tuple[int, str] | None = None
        self._is_done = False  # the client has said that it asks for nothing more
        self._is_deaf = False  # what still comes is not looked at
        self._is_paused = False
        self._is_closing = False
        self._drained: asyncio.Future[None] | None = None
        self._late = b""  # written at the end of this round
        self._rest = b""  # of which not all is parsed
        self._parsed = 0  # bytes of it that are
        self._taken: int | None = None  # of what waits for the client, when it was last looked; None: nothing waits

    # --- what the transport tells -----------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if len(data) <= AT_A_TIME:
            self._parse(data)
        elif not self._is_deaf:
            self._rest, self._parsed = data, 0
            self._parse_rest()

    def eof_received(self) -> None:
        """Who has said all does not wait for an answer: the transport closes."""

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = self._parser = None
        self._is_deaf = True
        self._waiting.clear()
        self._rest = self._late = b""
        if self._serving is not None:
            self._serving.leave()
        self.resume_writing()
        self.owner.lost(self)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None
        self._go_on()

    def _parse_rest(self) -> None:
        """As far as no request waits for its turn: a client may send any number of them at once."""
        while self._rest and not self._waiting and not self._is_deaf:
            rest, start, arriving = self._rest, self._parsed, self._arriving
            if arriving is None:
                end = rest.find(_HEAD_END, start) + len(_HEAD_END)
                if end < len(_HEAD_END):
                    end = len(rest)
            elif "content-length" in arriving.headers:
                end = start + int(arriving.headers["content-length"]) - arriving.received
            else:
                end = start + AT_A_TIME
            if end >= len(rest):
                self._rest = b""
            self._parsed = end
            self._parse(memoryview(rest)[start:end])

    def _parse(self, data: Any) -> None:
        while not self._is_deaf:
            self._has_told = False
            rest = b""
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._stay(bytes(data[upgrade.args[0] :]))
            except httptools.HttpParserError as error:
                what = "HTTP/2" if bytes(data[: len(_HTTP_2)]) == _HTTP_2 else error
                self._refuse(*(self._refusal or (400, f"this is no HTTP/1.1: {what}")))
            self._untold = 0 if self._has_told else self._untold + len(data)
            if self._untold > MAX_HEAD_BYTES and not self._is_deaf:
                self._refuse(431, _TOO_LONG)
            if not rest:
                break
            data = rest

    # --- what the parser tells --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._fields = {}
        self._is_new = False
        self._is_in_head = self._has_told = True
        self._field_count = self._head_bytes = 0
        self._since = monotonic()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # it stands behind the body
        known = _NAMES.get(name)
        if known is None:
            known = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        fields = self._fields
        if known in fields:
            if known == "host":
                self._stop(400, "the request names two hosts")
            text = f"{fields[known]}{'; ' if known == 'cookie' else ', '}{text}"
        fields[known] = text
        self._field_count += 1
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self._upgrade is not None:  # its head was written anew, see _stay
            self._arriving, self._upgrade = self._upgrade, None
            self._take(self._arriving)
            return
        parser, fields = self._parser, self._fields
        method = parser.get_method().decode()
        path, query = self._place(method)
        request = HttpRequest(self, method, path, query, fields)
        request.keeps = parser.should_keep_alive()
        self._is_done = not request.keeps
        if not request.keeps or "keep-alive" in fields.get("connection", "").lower() or "proxy-connection" in fields:
            version = parser.get_http_version()
            request.is_old = version != "1.1"
            if request.is_old and version != "1.0":
                self._stop(505, f"HTTP/1.1 is spoken here, not HTTP/{version}")
        host = fields.get("host")
        if host is None:
            if not request.is_old:
                self._stop(400, "the request names no host")
        elif host != self._host:
            if not _HOST.fullmatch(host):
                self._stop(400, f"{host[:100]!r} is no host")
            self._host = host
        if "transfer-encoding" in fields:
            if fields["transfer-encoding"].lower() != "chunked":
                self._stop(400, "of transfer encodings only 'chunked' is taken")
            if request.is_old:  # RFC 9112, 6.1: whoever passed it on may see its end elsewhere
                request.keeps = False
        if parser.should_upgrade():
            if method == "CONNECT":
                self._stop(400, "CONNECT is for proxies: this is none")
            self._upgrade = request
        else:
            self._arriving = request
            self._take(request)

    def on_body(self, data: bytes) -> None:
        self._has_told = True
        if self._arriving is not None:
            self._arriving.feed(data)

    def on_message_complete(self) -> None:
        if self._arriving is not None:
            self._arriving.complete()
            self._arriving = None
            if self._is_paused:
                self.regulate()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES or self._field_count > MAX_FIELDS:
            self._stop(431, _TOO_LONG)

    def _stop(self, status: int, why: str) -> NoReturn:
        """The parser stops, and :meth:`data_received` refuses the request."""
        self._refusal = status, why
        raise ValueError(why)

    def _place(self, method: str) -> tuple[str, str]:
        """The path that is asked for, decoded, and the query, as it is."""
        target = self._target.decode("latin-1")
        if "#" in target:  # whoever passed it on may see its end there
            self._stop(400, f"{method} {target[:100]!r} names a part of a page")
        path, _, query = target.partition("?")
        if not path.startswith("/"):  # as proxies are asked
            _, slashes, rest = path.partition("://")
            if not slashes:
                self._stop(400, f"{method} {path[:100]!r} names no path")
            path = f"/{rest.partition('/')[2]}"
        if "%" in path or not path.isascii():
            path = unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")
        return path, query

    def _stay(self, rest: bytes) -> bytes:
        """The client offers another protocol; a server may stay with this one (RFC 9110, 7.8), but the parser takes
        what follows for that other one. So a new one is to be told a head that offers nothing, and what follows."""
        request = self._upgrade
        assert request is not None
        self._parser = httptools.HttpRequestParser(self)
        framing = [f"{name}: {request.headers[name]}\r\n" for name in _FRAMING if name in request.headers]
        return f"POST / HTTP/1.1\r\n{''.join(framing)}\r\n".encode("latin-1") + rest

    # --- requests, one after the other ------------------------------------------------------------------------

    def _take(self, request: HttpRequest) -> None:
        if self._serving is None and not self.is_full:
            self._start(request)
        else:
            self._waiting.append(request)
            self.regulate()

    def _start(self, request: HttpRequest) -> None:
        self._serving = request
        self._task = self.owner.start(request)

    def _go_on(self) -> None:
        """Serve the next one, unless the client had better read what it has first."""
        if self._waiting and self._serving is None and not self.is_full:
            self._start(self._waiting.popleft())
            self._parse_rest()
            self.regulate()

    def ended(self, *, close: bool) -> None:
        """The request that was served has its answer."""
        self._serving = self._task = None
        self._since = monotonic()
        if self._transport is None:
            return
        if close:
            self._close()
        elif self._waiting:
            self._go_on()
        elif self._refusal is not None:
            self._tell()

    def _refuse(self, status: int, why: str) -> None:
        """No more of what comes can be understood. Who waits for an answer gets it first."""
        self._is_deaf = True
        if self._arriving is not None:
            self._arriving.fail(InputError(f"the body cannot be read: {why}"))
            return
        self._refusal = status, why
        if self._serving is None and not self._waiting:
            self._tell()

    def _tell(self) -> None:
        assert self._refusal is not None
        status, why = self._refusal
        self.owner.refused(status, why)
        body = json.dumps({"error": {"message": why, "type": "invalid_request_error", "param": None, "code": None}})
        head = f"{_STATUS[status]}content-type: application/json\r\nconnection: close\r\ndate: {self.owner.date}\r\n"
        self.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode("latin-1", "replace"))
        self._close()

    def regulate(self) -> None:
        """Read what there is a place for."""
        arriving = self._arriving
        pause = bool(self._waiting) or (arriving is not None and arriving.ahead > AHEAD_BYTES)
        transport = self._transport
        if pause != self._is_paused and transport is not None and not transport.is_closing():
            self._is_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    # --- what is written --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        transport = self._transport
        if self._late:
            data, self._late = self._late + data, b""
        if transport is not None and not (self._is_closing or transport.is_closing()):
            transport.write(data)

    def write_later(self, data: bytes) -> None:
        """At the end of this round of the event loop, or before whatever is written until then."""
        if not self._late:
            self.loop.call_soon(self._write_late)
        self._late += data

    def _write_late(self) -> None:
        if self._late:
            self.write(b"")

    async def drained(self) -> None:
        """When the client has read most of what was written, or has left."""
        while self.is_full:
            self._drained = reading = self.loop.create_future()
            await reading

    def _close(self) -> None:
        """Say goodbye. What a client still sends is thrown away until it has understood (RFC 9112, 9.6): it would be
        told of a reset, and lose what it has not read of its answer."""
        self._write_late()
        self._is_closing = self._is_deaf = True
        self._since = monotonic()
        self._waiting.clear()
        self._rest = b""
        transport = self._transport
        if transport.is_closing():
            pass
        elif self._is_done and self._arriving is None and self._refusal is None:
            transport.close()
        else:
            if self._is_paused:
                self._is_paused = False
                transport.resume_reading()
            transport.write_eof()

    # --- time -------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End what takes too long. Called every second."""
        transport = self._transport
        if transport is None:
            return
        if self._is_paused and _has_left(transport):  # who does not read is not told
            transport.abort()
            return
        unread = transport.get_write_buffer_size()
        taken = _taken(transport) - unread if unread else None
        if taken != self._taken:  # the client reads
            self._taken, self._since = taken, now
        seconds = now - self._since
        if unread and seconds > READ_SECONDS and (self.is_full or self._serving is None):
            transport.abort()
        elif self._is_closing:
            if not unread and seconds > LINGER_SECONDS:
                transport.abort()
        elif self._serving is not None or self._waiting:
            pass  # whoever serves it has deadlines of its own
        elif self._is_in_head:
            if seconds > HEAD_SECONDS:
                self._refuse(408, f"the headers did not come within {HEAD_SECONDS:g} seconds")
        elif not unread and seconds > self._patience():
            self._close()

    def _patience(self) -> float:
        """Seconds that a client has which asks for nothing."""
        if self.owner.stopping:
            return RECENT_SECONDS
        return HEAD_SECONDS if self._is_new else IDLE_SECONDS

    def stop(self) -> None:
        """End when what is under way has. One that was used just now may bring another request, which is its last."""
        since = self.idle_since
        if since is None or self._is_in_head or self._is_closing:
            return
        if monotonic() - since > RECENT_SECONDS:
            self._close()

    @property
    def idle_since(self) -> float | None:
        """Since when (of the monotonic clock) there is nothing to do but wait for a request; None while there is."""
        if self._transport is None or self._serving is not None or self._waiting:
            return None
        return None if self._transport.get_write_buffer_size() else self._since

    @property
    def is_busy(self) -> bool:
        """Whether a request is served."""
        return self._serving is not None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def cancel(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()


def _tcp_info(transport: Any, size: int) -> bytes:
    """What the system knows of the connection (tcp_info of <linux/tcp.h>); nothing where it does not say."""
    if sys.platform != "linux":
        return b""
    info: bytes = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    return info


def _has_left(transport: Any) -> bool:
    """Whether the client has left, although what it sent before is not read."""
    return _tcp_info(transport, 1)[:1] in _LEFT


def _taken(transport: Any) -> int:
    """Bytes that the client's side has acknowledged. It reads although nothing leaves us: the system's buffer, which
    may hold megabytes, makes room a third of it at a time."""
    return int.from_bytes(_tcp_info(transport, 128)[120:], sys.byteorder)
