"""One HTTP request: its body as it comes, and its answer as it goes out."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from lockgate.gateway.headers import Headers, field_lines

if TYPE_CHECKING:
    from lockgate.gateway.http1 import Connection

AHEAD_BYTES = 256 * 1024
"""Bytes of a body that are read before anybody asks for them."""
AT_ONCE = 64 * 1024
"""Bytes of an answer's body up to which it leaves in one piece with the headers."""
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
"""What an answer begins with."""

_PART_BYTES = 48  # what a piece of a body takes beside its own bytes
_BODILESS = frozenset((204, 304))


class ClientGone(Exception):
    """The client left before it had its answer. Not an error of ours: nobody is there to be told."""


class Watcher(Protocol):
    """Who wants to be told that a client left."""

    def cancel(self) -> None: ...


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
        self.received = 0
        """Bytes of the body that have come."""
        self._is_answered = False
        self._has_body = True  # the answer
        self._is_stream = False
        self._is_last = False  # on its connection
        self._is_broken = False
        self._is_awaited = "expect" in headers  # the client asks whether to send the body
        self._parts: list[bytes] = []
        self._ahead = 0  # bytes that they take
        self._error: Exception | None = None
        self._coming: asyncio.Future[None] | None = None

    # --- the body ---------------------------------------------------------------------------------------------

    @property
    def is_far_ahead(self) -> bool:
        """Whether so much of the body has come that no more is to be read before somebody takes it."""
        return self._ahead > AHEAD_BYTES

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        parts = self._parts
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        was_far, self._ahead = self.is_far_ahead, 0
        if was_far:
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
        self._ahead += len(data) + _PART_BYTES
        if self.is_far_ahead:
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
        nothing for ``http1.READ_SECONDS``."""
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
        line = STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
        return f"{line}{lines}{framing}date: {owner.date}\r\n\r\n".encode("latin-1", "replace")
