"""HTTP/1.1 with one client: requests parsed as they come, answers written, all on the event loop's own thread."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections import deque
from time import monotonic
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote_to_bytes

import httptools

from lockgate.errors import InputError
from lockgate.gateway.http_request import STATUS_LINES, HttpRequest

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a request's line and headers together."""
MAX_FIELDS = 100
"""Header fields of a request."""
AT_A_TIME = 32 * 1024
"""Bytes that are parsed before a look whether a request waits for its turn; as many may wait as these hold."""
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


class Owner(Protocol):
    """Whoever has the connections."""

    stopping: bool
    """Whether an answer is its connection's last."""
    date: str
    """Now, as a header says it."""

    def start(self, request: HttpRequest) -> asyncio.Task[None]: ...

    def lost(self, connection: Connection) -> None: ...

    def refused(self, status: int, why: str) -> None: ...


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
        head = (
            f"{STATUS_LINES[status]}content-type: application/json\r\nconnection: close\r\ndate: {self.owner.date}\r\n"
        )
        self.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode("latin-1", "replace"))
        self._close()

    def regulate(self) -> None:
        """Read what there is a place for."""
        arriving = self._arriving
        pause = bool(self._waiting) or (arriving is not None and arriving.is_far_ahead)
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
