"""One request and its response: what the handlers see of the server (RSGI)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from random import getrandbits
from typing import Any, Protocol

import msgspec

from lockgate.errors import InputError, LockgateError, TooLarge, Unauthenticated, Unavailable
from lockgate.gateway.problems import Response, anthropic_error, openai_error, problem
from lockgate.gateway.watchman import Wait, Watchman
from lockgate.telemetry.context import new_trace_id, parse_traceparent

log = logging.getLogger(__name__)

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request's body."""
SMALL_BODY = 64 * 1024
"""Bytes of one that is not counted among those which a worker holds at a time: see :class:`Room`."""
BODY_SECONDS = 60.0
"""Seconds a client may take to send it."""
SEND_SECONDS = 60.0
"""Seconds a client may leave a chunk unread."""
MANY = 8
"""Requests under way from which on what the calls of one round of the event loop write goes out together at its end.
The first of it wakes whoever reads it, which takes longer than the writing; for the rest it is awake."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Headers = list[tuple[str, str]]


class ClientGone(Exception):
    """The client left before it had its answer. Not an error of ours: nobody is there to be told."""


class Room:
    """Bytes of large bodies that a worker holds at a time, however many clients send them."""

    __slots__ = ("most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0


class Rooms:
    """One worker's. Bodies whose length nobody declared, and those of clients that are not known (yet), have less."""

    def __init__(self, known: int = 256 * 1024 * 1024, others: int = 64 * 1024 * 1024) -> None:
        self.requests = 0  # under way
        self.known = Room(known)
        self.others = Room(others)


class Ends:
    """When a call has to be over, and what its client is told then."""

    __slots__ = ("at", "cut", "error")

    def __init__(self, at: float, error: LockgateError) -> None:
        self.at = at  # of the monotonic clock
        self.error = error
        self.cut = False
        """Whether the call was ended by it."""


class Transport(Protocol):
    """Where a streamed response goes."""

    async def send_bytes(self, data: bytes) -> None: ...


class Exchange:
    """One HTTP request, its identity in traces, and the way back to the client."""

    __slots__ = (
        "_answer", "_held", "_room", "answered", "headers", "method", "parent_id", "path", "protocol", "query",
        "reply_headers", "request_id", "rooms", "started_ns", "status", "trace_id", "watchman",
    )  # fmt: skip

    def __init__(self, scope: Any, protocol: Any, watchman: Watchman, rooms: Rooms) -> None:
        self.protocol = protocol
        self.watchman = watchman
        self.rooms = rooms
        rooms.requests += 1
        self._answer: tuple[int, Headers, bytes] | None = None
        self._room: Room | None = None
        self._held = 0
        self.answered = False
        """Whether a status has gone out to the client: from then on nobody else can answer."""
        self.status = 0  # of the answer; 0 before there is one
        self.reply_headers: Headers = []
        """Sent with whatever the answer will be."""
        self.method: str = scope.method
        self.path: str = scope.path
        self.query: str = scope.query_string
        self.headers = scope.headers
        self.started_ns = time.time_ns()
        given = self.headers.get("x-request-id")
        self.request_id: str = given if given and _REQUEST_ID.fullmatch(given) else f"req_{getrandbits(64):016x}"
        above = parse_traceparent(self.headers.get("traceparent"))
        self.trace_id = above.trace_id if above else new_trace_id()
        self.parent_id = above.span_id if above else None

    # --- the request ------------------------------------------------------------------------------------------

    def bearer(self) -> str:
        """The key or token the client sent; :class:`Unauthenticated` when there is none."""
        header = self.headers.get("authorization")
        if header is None:
            found = self.headers.get("x-api-key")
            if found is None:
                raise Unauthenticated("no API key was sent", remedy="send the header 'Authorization: Bearer <key>'")
            return str(found)
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "bearer" or not value:
            raise Unauthenticated("the authorization header is no bearer key", remedy="send 'Bearer <key>'")
        return str(value.strip())

    async def body(self, limit: int | None = None, *, known: bool = True) -> bytes:
        """The whole body; :class:`TooLarge` over ``limit`` bytes (None: ``MAX_BODY``), InputError when it does not come
        in time, Unavailable while the worker holds too many. ``known``: whether the client has said who it is."""
        if limit is None:
            limit = MAX_BODY
        given = self.headers.get("content-length")
        declared = int(given) if given is not None and given.isdecimal() else None
        if declared is not None and declared > limit:
            raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
        try:
            with self.watchman.expect(BODY_SECONDS):
                if declared is not None and declared <= SMALL_BODY:
                    return bytes(await self.protocol())
                self._room = self.rooms.known if known and declared is not None else self.rooms.others
                whole = bytearray()
                async for part in self.protocol:
                    self._hold(self._room, len(part))
                    if self._held > limit:
                        raise TooLarge(f"the body has more than {limit} bytes")
                    whole += part
                if declared is not None and len(whole) < declared:
                    raise ClientGone
                return bytes(whole)
        except TimeoutError as late:
            raise InputError(f"the body did not come within {BODY_SECONDS:g} seconds") from late
        except RuntimeError as gone:  # what RSGI raises when the connection breaks
            raise ClientGone from gone
        except asyncio.CancelledError as gone:
            raise why_cancelled(gone) from None

    def _hold(self, room: Room, size: int) -> None:
        if room.taken + size > room.most:
            raise Unavailable(
                "many large requests are under way, and there is no room for another", remedy="wait a bit"
            )
        room.taken += size
        self._held += size

    async def end(self) -> None:
        """The request is over: its body makes room for others, and an answer that has waited goes out."""
        if self._room is not None:
            self._room.taken -= self._held
            self._room, self._held = None, 0
        try:
            if self._answer is not None:
                with contextlib.suppress(asyncio.CancelledError):  # the call is over, and settled
                    await asyncio.sleep(0)
                self.protocol.response_bytes(*self._answer)
        finally:
            self.rooms.requests -= 1

    @property
    def in_company(self) -> bool:
        """Whether what is written for it had better wait for the end of this round of the event loop."""
        return self.rooms.requests >= MANY

    # --- the response -----------------------------------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.answered = True
        self.status = status
        headers.append(("x-request-id", self.request_id))
        if self.reply_headers:
            headers += self.reply_headers
        if self.in_company:
            self._answer = status, headers, body
        else:
            self.protocol.response_bytes(status, headers, body)

    def respond_json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        self.respond(status, [("content-type", "application/json"), *(headers or [])], msgspec.json.encode(value))

    def fail(self, error: LockgateError, headers: Headers | None = None, details: dict[str, Any] | None = None) -> None:
        """Answer with the error, in the shape this path's clients know; not where an answer has begun."""
        if self.answered:
            log.warning("request %s failed after its answer: %s", self.request_id, error.message)
            return
        answer: Response
        if self.path.startswith("/v1/messages"):
            answer = anthropic_error(error, request_id=self.request_id, details=details)
        elif self.path.startswith("/v1/"):
            answer = openai_error(error, details=details)
        else:
            answer = problem(error, instance=self.request_id, details=details)
        self.respond(answer[0], [*answer[1], *(headers or [])], answer[2])

    def stream(self, status: int, headers: Headers) -> Transport:
        self.answered = True
        self.status = status
        headers.append(("x-request-id", self.request_id))
        if self.reply_headers:
            headers += self.reply_headers
        transport: Transport = self.protocol.response_stream(status, headers)
        return transport

    async def send(self, transport: Transport, chunk: bytes) -> None:
        """Hand a chunk to the client; :class:`ClientGone` when it left, or does not read."""
        try:
            with self.watchman.expect(SEND_SECONDS):
                await transport.send_bytes(chunk)
        except (RuntimeError, TimeoutError) as gone:
            raise ClientGone from gone

    def watch(self, ends: Ends | None = None) -> _Watch:
        """Cancel the running task when the client leaves, or when the time of ``ends`` comes before any of an answer
        has gone out.

            with exchange.watch():
                answer = await upstream.send(...)

        Ends in :class:`ClientGone` or in the error of ``ends``, also when the upstream has not sent its headers yet.
        """
        return _Watch(self, ends)


def why_cancelled(cancelled: asyncio.CancelledError) -> BaseException:
    """The server cancels what waits for a body, not the task that does, when the client leaves in the middle of it."""
    task = asyncio.current_task()
    return ClientGone() if task is not None and not task.cancelling() else cancelled


class _Watch(Wait):
    __slots__ = ("_ends", "_exchange", "_gone")

    def __init__(self, exchange: Exchange, ends: Ends | None = None) -> None:
        super().__init__(exchange.watchman)
        self._exchange = exchange
        self._ends = ends
        self._gone: Any = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        if self._gone is not None:
            self._gone.remove_done_callback(self.cancel)
            self._gone.cancel()  # else the server keeps it, and with it the whole call, for as long as the connection
        super().__exit__(kind, error, at)

    def look(self, now: float) -> None:
        if self._gone is None:
            self._gone = self._exchange.protocol.client_disconnect()
            self._gone.add_done_callback(self.cancel)
        if self._ends is not None and now >= self._ends.at and not (self._cancelled or self._exchange.answered):
            self._ends.cut = True
            self.cancel()

    def meaning(self) -> Exception:
        return self._ends.error if self._ends is not None and self._ends.cut else ClientGone()
