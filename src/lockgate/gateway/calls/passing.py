"""One attempt: send the request, and pass on what comes back."""

from __future__ import annotations

import re
import time

from lockgate.errors import LockgateError, UpstreamError
from lockgate.gateway.calls.call import Attempt
from lockgate.gateway.calls.retries import UNKNOWN_OUTCOME, seconds_to_wait
from lockgate.gateway.calls.seams import Guards, StreamGuard
from lockgate.gateway.exchange import Headers, Transport
from lockgate.gateway.protocols.model import Outcome
from lockgate.gateway.upstream import Answer, Upstream
from lockgate.money import to_usd
from lockgate.project.secrets.masking import without
from lockgate.telemetry.context import format_traceparent
from lockgate.telemetry.metrics import GenAI

STREAM_BYTES = 64 * 1024 * 1024
"""Bytes of one stream. The server in front (granian 2.8) takes chunks without waiting for the client to read them, so
this also bounds what a client that does not read can make a worker keep."""
KEPT_BYTES = 4 * 1024 * 1024
"""Bytes of an answer that may be kept in a cache."""
HELD_BACK = 1024 * 1024
"""Bytes of a stream that wait for its output to begin, while another upstream could still take over."""

_HEADER = re.compile(r"[A-Za-z0-9._, =-]{1,512}")
_PASSED_ON = ("content-type", "retry-after")


class Declined(Exception):
    """The provider said no."""

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.headers = headers
        self.text = body[:500].decode("utf-8", "replace")
        self.retry_after = seconds_to_wait(dict(headers).get("retry-after"))

    def error(self, attempt: Attempt) -> UpstreamError:
        """For a call that nobody passes the provider's words on to."""
        return UpstreamError(
            f"provider {attempt.target.provider.name!r} answered {self.status}: {self.text}",
            sent=attempt.sent,
            upstream_status=self.status,
            retry_after=self.retry_after,
        )


class Passing:
    """Sends attempts and passes on their answers."""

    def __init__(self, upstream: Upstream, metrics: GenAI, guards: Guards | None) -> None:
        self._upstream = upstream
        self._metrics = metrics
        self._guards = guards

    async def run(self, attempt: Attempt, *, may_switch: bool, keep: bool) -> tuple[bytes, str] | None:
        """Send, and answer the client. Raises Declined, or UpstreamError, where the client has got nothing yet.

        ``may_switch``: another upstream could take over as long as no output has begun. Returns what may be kept.
        """
        answer = await self._send(attempt)
        try:
            if answer.status != 200:
                raise await self._declined(attempt, answer)
            if attempt.call.request.stream:
                return await self._pass_stream(attempt, answer, may_switch, keep)
            return await self._pass_answer(attempt, answer, keep)
        finally:
            answer.close()

    async def fetch(self, attempt: Attempt) -> bytes:
        """Send, and give the answer instead of passing it on."""
        answer = await self._send(attempt)
        try:
            if answer.status != 200:
                raise await self._declined(attempt, answer)
            return await self._read(attempt, answer)
        finally:
            answer.close()

    def decline(self, attempt: Attempt, declined: Declined) -> None:
        """Tell the client the provider's own words. Raises where they would be taken for Lockgate's."""
        provider = attempt.target.provider.name
        if declined.status in (401, 403):
            raise UpstreamError(
                f"provider {provider!r} refused Lockgate's credentials",
                sent=False,
                upstream_status=declined.status,
                remedy="check the provider's api_key in lockgate.yaml",
            )
        if declined.status < 400:
            raise UpstreamError(f"provider {provider!r} answered {declined.status}", sent=True)
        body = attempt.passage.refusal(declined.status, declined.body)
        attempt.call.exchange.respond(declined.status, list(declined.headers), body)

    async def _send(self, attempt: Attempt) -> Answer:
        call, target = attempt.call, attempt.target
        request, exchange = call.request, call.exchange
        body = attempt.passage.forward(request, attempt.model, attempt.max_tokens)
        hold = attempt.reserve()
        headers = {
            **target.headers,
            "traceparent": format_traceparent(exchange.trace_id, attempt.span_id),
            "x-request-id": exchange.request_id,
        }
        for name in attempt.passage.headers:
            given = exchange.headers.get(name)
            if given is not None and _HEADER.fullmatch(given):
                headers[name] = given
        attempt.meter.mark_sent(hold)
        attempt.sent = True
        try:
            answer = await self._upstream.send(
                "POST",
                target.url(attempt.passage.path, attempt.model),
                headers=headers,
                body=body,
                timeout=target.provider.timeout,
                stream=request.stream,
            )
        except UpstreamError as error:
            attempt.sent = error.sent
            raise
        attempt.status = answer.status
        return answer

    async def _read(self, attempt: Attempt, answer: Answer) -> bytes:
        """The whole answer, settled."""
        body = await answer.read()
        attempt.outcome = outcome = attempt.passage.outcome(body)
        attempt.settle()
        if outcome.usage is None:
            self._look_closer(attempt, outcome, body)
        return body

    def _look_closer(self, attempt: Attempt, outcome: Outcome, body: bytes) -> None:
        """An answer of status 200 that does not say what was used: is it one at all?"""
        provider = attempt.target.provider.name
        if outcome.error is not None:
            raise UpstreamError(f"provider {provider!r} answered 200 with an error: {outcome.error}", sent=True)
        if body.lstrip(b" \t\r\n")[:1] != b"{":
            shown = body[:80].decode("utf-8", "replace")
            raise UpstreamError(f"provider {provider!r} answered with no JSON object but {shown!r}", sent=True)
        attempt.error_type, attempt.error = "no_usage", "the answer does not say what was used"

    async def _pass_answer(self, attempt: Attempt, answer: Answer, keep: bool) -> tuple[bytes, str] | None:
        call = attempt.call
        body = attempt.passage.answer(await self._read(attempt, answer), call.request)
        if self._guards is not None:
            body = await self._guards.after_answer(call, body)
        headers = [*_headers(answer), ("x-lockgate-cost-usd", f"{to_usd(call.cost):.9f}")]
        call.exchange.respond(200, headers, body)
        if keep and attempt.error_type is None and len(body) <= KEPT_BYTES:
            return body, answer.header("content-type") or "application/json"
        return None

    async def _pass_stream(
        self, attempt: Attempt, answer: Answer, may_switch: bool, keep: bool
    ) -> tuple[bytes, str] | None:
        call, exchange = attempt.call, attempt.call.exchange
        tap = attempt.passage.tap(call.request)
        attempt.outcome = outcome = tap.outcome
        guard = self._guards.on_stream(call) if self._guards is not None else None
        to_client = _ToClient(attempt, answer, self._metrics, keep)
        held: list[bytes] = []
        left, waiting = STREAM_BYTES, HELD_BACK
        kind = answer.header("content-type") or ""
        if kind.startswith("text/html"):
            raise UpstreamError(f"provider {attempt.target.provider.name!r} answered with HTML", sent=True)
        try:
            async for chunk in answer.chunks():
                left -= len(chunk)
                if left < 0:
                    raise UpstreamError(f"the stream is longer than {STREAM_BYTES} bytes", sent=True)
                passed = tap.feed(chunk)
                if outcome.error is not None and not exchange.answered:
                    raise UpstreamError(
                        f"provider {attempt.target.provider.name!r} broke off: {outcome.error}", sent=True
                    )
                if guard is not None and passed:
                    passed = guard.feed(passed)
                if not passed:
                    continue
                if may_switch and not exchange.answered and not tap.begun and waiting > 0:
                    held.append(passed)
                    waiting -= len(passed)
                    continue
                if held:
                    passed = b"".join((*held, passed))
                    held.clear()
                await to_client.send(passed)
            rest = _finished(tap.finish(), guard)
            if held or rest or not exchange.answered:
                await to_client.send(b"".join((*held, rest)))
        except LockgateError as error:
            if not exchange.answered:
                raise
            # The status has gone out: the error is the stream's last event.
            error.message = attempt.target.masked(error.message)
            attempt.error_type, attempt.error = error.code, error.message
            await exchange.send(to_client.open(), call.request.dialect.error_event(error))
        if outcome.error is not None:
            attempt.error_type, attempt.error = "upstream_error", outcome.error
        attempt.settle()
        if to_client.kept is not None and attempt.error_type is None and outcome.usage is not None:
            return b"".join(to_client.kept), kind or "text/event-stream"
        return None

    async def _declined(self, attempt: Attempt, answer: Answer) -> Declined:
        """The provider said no. Its words go to the client, but not the key, nor what would be taken for ours."""
        body = without(await answer.read(1024 * 1024), attempt.target.key)
        attempt.sent = answer.status in UNKNOWN_OUTCOME or answer.status < 400
        return Declined(answer.status, body, _headers(answer))


class _ToClient:
    """The client's end of a stream, opened with its first byte."""

    __slots__ = ("_answer", "_attempt", "_metrics", "_transport", "kept", "kept_bytes")

    def __init__(self, attempt: Attempt, answer: Answer, metrics: GenAI, keep: bool) -> None:
        self._attempt = attempt
        self._answer = answer
        self._metrics = metrics
        self._transport: Transport | None = None
        self.kept: list[bytes] | None = [] if keep else None
        self.kept_bytes = 0

    def open(self) -> Transport:
        if self._transport is None:
            attempt = self._attempt
            call = attempt.call
            self._transport = call.exchange.stream(200, _headers(self._answer))
            self._metrics.first_chunk_seconds.observe(
                (time.time_ns() - attempt.started_ns) / 1e9,
                call.request.dialect.operation,
                attempt.target.provider.name,
                attempt.model,
            )
        return self._transport

    async def send(self, chunk: bytes) -> None:
        if self.kept is not None:
            self.kept_bytes += len(chunk)
            if self.kept_bytes > KEPT_BYTES:
                self.kept = None
            else:
                self.kept.append(chunk)
        transport = self.open()
        if chunk:
            await self._attempt.call.exchange.send(transport, chunk)


def _finished(rest: bytes, guard: StreamGuard | None) -> bytes:
    if guard is None:
        return rest
    return (guard.feed(rest) if rest else b"") + guard.finish()


def _headers(answer: Answer) -> Headers:
    return [(name, value) for name in _PASSED_ON if (value := answer.header(name)) is not None]
