"""One request and its response: what the handlers see of the server (RSGI)."""

from __future__ import annotations

import asyncio
import re
import time
from random import getrandbits
from typing import Any, Protocol

import msgspec

from lockgate.errors import InputError, LockgateError, TooLarge, Unauthenticated
from lockgate.gateway.problems import Response, openai_error, problem
from lockgate.telemetry.context import new_trace_id, parse_traceparent

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request's body."""
BODY_SECONDS = 60.0
"""Seconds a client may take to send it."""
SEND_SECONDS = 60.0
"""Seconds a client may leave a chunk unread."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WATCH_AFTER = 0.05  # seconds; a call that is over sooner needs no watch for its client

Headers = list[tuple[str, str]]


class ClientGone(Exception):
    """The client left before it had its answer. Not an error of ours: nobody is there to be told."""


class Transport(Protocol):
    """Where a streamed response goes."""

    async def send_bytes(self, data: bytes) -> None: ...


class Exchange:
    """One HTTP request, its identity in traces, and the way back to the client."""

    __slots__ = ("headers", "method", "parent_id", "path", "protocol", "query", "request_id", "started_ns", "trace_id")

    def __init__(self, scope: Any, protocol: Any) -> None:
        self.protocol = protocol
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

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """The whole body; :class:`TooLarge` over ``limit`` bytes, InputError when it does not come in time."""
        declared = self.headers.get("content-length")
        if declared is not None and declared.isdecimal() and int(declared) > limit:
            raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                if declared is not None:
                    return bytes(await self.protocol())
                parts: list[bytes] = []
                taken = 0
                async for part in self.protocol:
                    taken += len(part)
                    if taken > limit:
                        raise TooLarge(f"the body has more than {limit} bytes")
                    parts.append(part)
                return b"".join(parts)
        except TimeoutError as late:
            raise InputError(f"the body did not come within {BODY_SECONDS:g} seconds") from late
        except RuntimeError as gone:  # what RSGI raises when the connection breaks
            raise ClientGone from gone

    # --- the response -----------------------------------------------------------------------------------------

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        headers.append(("x-request-id", self.request_id))
        self.protocol.response_bytes(status, headers, body)

    def respond_json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        self.respond(status, [("content-type", "application/json"), *(headers or [])], msgspec.json.encode(value))

    def fail(self, error: LockgateError, headers: Headers | None = None, details: dict[str, Any] | None = None) -> None:
        """Answer with the error, in the shape this path's clients know."""
        answer: Response
        if self.path.startswith("/v1/"):
            answer = openai_error(error, details=details)
        else:
            answer = problem(error, instance=self.request_id, details=details)
        self.respond(answer[0], [*answer[1], *(headers or [])], answer[2])

    def error_event(self, error: LockgateError) -> bytes:
        """An error as the last event of a stream whose status has gone out already."""
        return b"data: " + openai_error(error)[2] + b"\n\n"

    def stream(self, status: int, headers: Headers) -> Transport:
        headers.append(("x-request-id", self.request_id))
        transport: Transport = self.protocol.response_stream(status, headers)
        return transport

    async def send(self, transport: Transport, chunk: bytes) -> None:
        """Hand a chunk to the client; :class:`ClientGone` when it left, or does not read."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await transport.send_bytes(chunk)
        except (RuntimeError, TimeoutError) as gone:
            raise ClientGone from gone


class Watch:
    """Cancels the running task when the client leaves.

        with Watch(exchange):
            answer = await upstream.send(...)

    Ends in :class:`ClientGone`, also when the upstream has not sent its headers yet. Most calls with a fast upstream
    are over before the watch is set.
    """

    __slots__ = ("_gone", "_left", "_protocol", "_task", "_timer")

    def __init__(self, exchange: Exchange) -> None:
        self._protocol = exchange.protocol
        self._gone: Any = None
        self._left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, self._set)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self._timer.cancel()
        if self._gone is not None:
            self._gone.remove_done_callback(self._leave)
        if self._left and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientGone from error

    def _set(self) -> None:
        self._gone = self._protocol.client_disconnect()
        self._gone.add_done_callback(self._leave)

    def _leave(self, _: Any) -> None:
        self._left = True
        self._task.cancel()
