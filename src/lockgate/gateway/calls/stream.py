"""A streamed answer on its way: what came is read, guarded, and passed on as soon as it may be."""

from __future__ import annotations

import asyncio
import time

from lockgate.errors import UpstreamError
from lockgate.gateway.calls.call import Attempt
from lockgate.gateway.calls.seams import StreamGuard
from lockgate.gateway.exchange import Ends, Exchange
from lockgate.gateway.headers import Headers
from lockgate.gateway.protocols.model import Outcome
from lockgate.gateway.upstream import Answer
from lockgate.gateway.watchman import Wait
from lockgate.telemetry.metrics import GenAI

STREAM_BYTES = 64 * 1024 * 1024
"""Bytes of one stream: more is no answer of a model, but a fault."""
KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of an answer that may be kept in a cache."""
HELD_BACK = 1024 * 1024
"""Bytes of a stream that wait for its output to begin, while another upstream could still take over."""

_PASSED_ON = ("content-type", "retry-after")
_NOTHING = Outcome()


class Stream:
    """One stream, from the upstream to the client."""

    __slots__ = (
        "_answer", "_attempt", "_guard", "_held", "_is_open", "_left", "_may_switch", "_metrics", "_tap",
        "_waiting", "kept", "kept_bytes",
    )  # fmt: skip

    def __init__(
        self,
        attempt: Attempt,
        answer: Answer,
        metrics: GenAI,
        guard: StreamGuard | None,
        *,
        may_switch: bool,
        keep: bool,
    ) -> None:
        self._attempt = attempt
        self._answer = answer
        self._metrics = metrics
        self._guard = guard
        self._may_switch = may_switch
        self._tap = attempt.passage.tap(attempt.call.request)
        attempt.outcome = self._tap.outcome
        self._is_open = False
        self._held: list[bytes] = []
        self._left, self._waiting = STREAM_BYTES, HELD_BACK
        self.kept: list[bytes] | None = [] if keep else None
        self.kept_bytes = 0

    async def run(self, *, until_begun: bool = False) -> None:
        """Pass on what comes until it ends, or until some output has come; can then be run again."""
        tap, guard, exchange = self._tap, self._guard, self._attempt.call.exchange
        outcome = tap.outcome
        while chunk := await self._answer.piece():
            self._left -= len(chunk)
            if self._left < 0:
                raise UpstreamError(f"the stream is longer than {STREAM_BYTES} bytes", sent=True)
            passed = tap.feed(chunk)
            if outcome.error is not None and not exchange.answered:
                raise self._broke_off(outcome.error)
            if guard is not None and passed:
                passed = await asyncio.to_thread(guard.feed, passed) if guard.is_slow else guard.feed(passed)
            if passed:
                if self._may_switch and not exchange.answered and not tap.begun and self._waiting > 0:
                    self._held.append(passed)
                    self._waiting -= len(passed)
                else:
                    await self._send(passed)
            if until_begun and tap.begun:
                return
        rest = tap.finish()
        if not tap.begun and outcome == _NOTHING:
            raise self._broke_off("the stream ended without an event that can be read")
        if outcome.error is not None and not exchange.answered:
            raise self._broke_off(outcome.error)
        if guard is not None:
            rest = await asyncio.to_thread(_last, guard, rest) if guard.is_slow else _last(guard, rest)
        if rest or self._held or not exchange.answered:
            await self._send(rest)

    def open(self) -> None:
        """The client's end is opened with the first byte."""
        if not self._is_open:
            self._is_open = True
            attempt = self._attempt
            call = attempt.call
            call.exchange.stream(200, passed_headers(self._answer))
            self._metrics.first_chunk_seconds.observe(
                (time.time_ns() - attempt.started_ns) / 1e9,
                call.request.dialect.operation,
                attempt.target.provider.name,
                attempt.model,
            )

    async def _send(self, chunk: bytes) -> None:
        if self._held:
            chunk = b"".join((*self._held, chunk))
            self._held.clear()
        if self.kept is not None:
            self.kept_bytes += len(chunk)
            if self.kept_bytes > KEPT_BYTES:
                self.kept = None
            else:
                self.kept.append(chunk)
        self.open()
        if chunk:
            await self._attempt.call.exchange.send(chunk)

    def _broke_off(self, error: str) -> UpstreamError:
        return UpstreamError(f"provider {self._attempt.target.provider.name!r} broke off: {error}", sent=True)


class Cut(Wait):
    """Ends a stream that has begun to go out when the time of its run is over, with the error that says so. Before it
    has begun, whoever watches the call does."""

    __slots__ = ("_ends", "_exchange")

    def __init__(self, exchange: Exchange, ends: Ends) -> None:
        super().__init__(exchange.watchman)
        self._exchange = exchange
        self._ends = ends

    def look(self, now: float) -> None:
        if now >= self._ends.at and self._exchange.answered and not self._cancelled:
            self._ends.cut = True
            self.cancel()

    def meaning(self) -> Exception:
        return self._ends.error


def _last(guard: StreamGuard, rest: bytes) -> bytes:
    return (guard.feed(rest) if rest else b"") + guard.finish()


def passed_headers(answer: Answer) -> Headers:
    """Of the upstream's headers, those that the client is to see."""
    return [(name, value) for name in _PASSED_ON if (value := answer.header(name)) is not None]
