"""One request and its response: what the handlers see of the server."""

from __future__ import annotations

import logging
import re
import time
from random import getrandbits
from typing import Any

import msgspec

from lockgate.errors import InputError, LockgateError, TooLarge, Unauthenticated, Unavailable
from lockgate.gateway.headers import Headers
from lockgate.gateway.http_request import ClientGone, HttpRequest
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
MANY = 8
"""Requests under way from which on what the calls of one round of the event loop write goes out together at its end.
The first of it wakes whoever reads it, which takes longer than the writing; for the rest it is awake."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


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


class Exchange:
    """One HTTP request, its identity in traces, and the way back to the client."""

    __slots__ = (
        "_held", "_request", "_room", "answered", "headers", "method", "parent_id", "path", "query",
        "reply_headers", "request_id", "rooms", "started_ns", "status", "trace_id", "watchman",
    )  # fmt: skip

    def __init__(self, request: HttpRequest, watchman: Watchman, rooms: Rooms) -> None:
        self._request = request
        self.watchman = watchman
        self.rooms = rooms
        rooms.requests += 1
        self._room: Room | None = None
        self._held = 0
        self.answered = False
        """Whether a status has gone out to the client: from then on nobody else can answer."""
        self.status = 0  # of the answer; 0 before there is one
        self.reply_headers: Headers = []
        """Sent with whatever the answer will be."""
        self.method = request.method
        self.path = request.path
        self.query = request.query
        self.headers = request.headers
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
        request = self._request
        if request.is_complete and declared is not None and declared <= SMALL_BODY:
            return request.take()
        try:
            with self.watchman.expect(BODY_SECONDS):
                if declared is not None and declared <= SMALL_BODY:
                    return await request.whole()
                self._room = self.rooms.known if known and declared is not None else self.rooms.others
                whole = bytearray()
                while part := await request.more():
                    self._hold(self._room, len(part))
                    if self._held > limit:
                        raise TooLarge(f"the body has more than {limit} bytes")
                    whole += part
                return bytes(whole)
        except TimeoutError as late:
            raise InputError(f"the body did not come within {BODY_SECONDS:g} seconds") from late

    async def part(self) -> bytes:
        """A body's next bytes, for one that is too long to be held; none at its end. Raises as :meth:`body` does, the
        deadline being each part's."""
        try:
            with self.watchman.expect(BODY_SECONDS):
                return await self._request.more()
        except TimeoutError as late:
            raise InputError(f"the body stopped coming for {BODY_SECONDS:g} seconds") from late

    def _hold(self, room: Room, size: int) -> None:
        if room.taken + size > room.most:
            raise Unavailable(
                "many large requests are under way, and there is no room for another", remedy="wait a bit"
            )
        room.taken += size
        self._held += size

    def end(self) -> None:
        """The request is over: its body makes room for others."""
        if self._room is not None:
            self._room.taken -= self._held
            self._room, self._held = None, 0
        self.rooms.requests -= 1

    @property
    def in_company(self) -> bool:
        """Whether what is written for it had better wait for the end of this round of the event loop."""
        return self.rooms.requests >= MANY

    # --- the response -----------------------------------------------------------------------------------------

    def send_away(self) -> None:
        """Its answer is the last on its connection: on another one the client may meet another worker."""
        self._request.keeps = False

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        headers.append(("x-request-id", self.request_id))
        if self.reply_headers:
            headers += self.reply_headers
        self._request.respond(status, headers, body, self.in_company)
        self.answered = True
        self.status = status

    def respond_json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        self.respond(status, [("content-type", "application/json"), *(headers or [])], msgspec.json.encode(value))

    def fail(self, error: LockgateError, headers: Headers | None = None, details: dict[str, Any] | None = None) -> None:
        """Answer with the error, in the shape this path's clients know; not where an answer has begun."""
        if self.answered:
            log.warning("request %s failed after its answer: %s", self.request_id, error.message)
            self._request.break_off()
            return
        answer: Response
        if self.path.startswith("/v1/messages"):
            answer = anthropic_error(error, request_id=self.request_id, details=details)
        elif self.path.startswith("/v1/"):
            answer = openai_error(error, details=details)
        else:
            answer = problem(error, instance=self.request_id, details=details)
        self.respond(answer[0], [*answer[1], *(headers or [])], answer[2])

    def stream(self, status: int, headers: Headers) -> None:
        """Begin an answer that is sent in pieces."""
        headers.append(("x-request-id", self.request_id))
        if self.reply_headers:
            headers += self.reply_headers
        self._request.stream(status, headers)
        self.answered = True
        self.status = status

    async def send(self, chunk: bytes) -> None:
        """Hand a chunk to the client; :class:`ClientGone` when it left, or does not read."""
        if not self._request.send(chunk):
            await self._request.drained()

    def watch(self, ends: Ends | None = None) -> _Watch:
        """Cancel the running task when the client leaves, or when the time of ``ends`` comes before any of an answer
        has gone out.

            with exchange.watch():
                answer = await upstream.send(...)

        Ends in :class:`ClientGone` or in the error of ``ends``, also when the upstream has not sent its headers yet.
        """
        return _Watch(self, ends)


class _Watch(Wait):
    __slots__ = ("_above", "_ends", "_exchange", "_request")

    def __init__(self, exchange: Exchange, ends: Ends | None = None) -> None:
        super().__init__(exchange.watchman)
        self._exchange = exchange
        self._request = exchange._request
        self._ends = ends
        self._above = self._request.watcher

    def __enter__(self) -> None:
        if self._request.is_gone:
            raise ClientGone
        super().__enter__()
        self._request.watcher = self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self._request.watcher = self._above
        super().__exit__(kind, error, at)

    def look(self, now: float) -> None:
        if self._ends is not None and now >= self._ends.at and not (self._cancelled or self._exchange.answered):
            self._ends.cut = True
            self.cancel()

    def meaning(self) -> Exception:
        return self._ends.error if self._ends is not None and self._ends.cut else ClientGone()
