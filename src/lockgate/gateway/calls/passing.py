"""One attempt: send the request, and pass on what comes back."""

from __future__ import annotations

import re
import time

from lockgate.errors import InputError, LockgateError, UpstreamError
from lockgate.gateway.calls.call import Attempt
from lockgate.gateway.calls.retries import UNKNOWN_OUTCOME, seconds_to_wait
from lockgate.gateway.calls.seams import Guards
from lockgate.gateway.calls.stream import KEPT_BYTES, Cut, Stream, passed_headers
from lockgate.gateway.headers import Headers
from lockgate.gateway.protocols.answers import document
from lockgate.gateway.protocols.model import Outcome
from lockgate.gateway.upstream import Answer, Upstream
from lockgate.limits.model import LeaseNeeded
from lockgate.money import to_usd
from lockgate.telemetry.context import format_traceparent
from lockgate.telemetry.metrics import GenAI

_HEADER = re.compile(r"[A-Za-z0-9._, =-]{1,512}")


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

    async def open(self, attempt: Attempt) -> Answer:
        """Send, and wait for the headers of a good answer. Raises Declined, or UpstreamError."""
        first_token = attempt.target.provider.first_token_timeout
        if first_token is None or not attempt.call.request.stream:
            answer = await self._send(attempt)
        else:
            try:
                with attempt.call.exchange.watchman.expect(first_token):
                    answer = await self._send(attempt)
            except TimeoutError as late:
                raise _no_output(attempt, first_token) from late
        if answer.status != 200:
            try:
                raise await self._declined(attempt, answer)
            finally:
                answer.close()
        return answer

    async def give(self, attempt: Attempt, answer: Answer, *, may_switch: bool, keep: bool) -> tuple[bytes, str] | None:
        """Pass the answer on. Raises UpstreamError where the client has got nothing yet.

        ``may_switch``: another upstream could take over as long as no output has begun. Returns what may be kept.
        """
        try:
            if attempt.call.request.stream:
                return await self._pass_stream(attempt, answer, may_switch, keep)
            return await self._pass_answer(attempt, answer, keep)
        finally:
            answer.close()

    async def fetch(self, attempt: Attempt) -> bytes:
        """Send, and give the answer instead of passing it on."""
        answer = await self.open(attempt)
        try:
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
        headers = [(name, value) for name, value in declined.headers if name != "content-type"]
        if document(declined.body):
            body = attempt.passage.refusal(declined.status, declined.body)
        else:  # a page of whatever stands before the provider, say: no client of the protocol could read it
            error = declined.error(attempt)
            error.status = declined.status
            body = attempt.call.request.dialect.failure(error)[2]
        if attempt.call.cost:
            headers.append(("x-lockgate-cost-usd", f"{to_usd(attempt.call.cost):.9f}"))
        attempt.call.exchange.respond(declined.status, [("content-type", "application/json"), *headers], body)

    async def _send(self, attempt: Attempt) -> Answer:
        call, target = attempt.call, attempt.target
        request, exchange = call.request, call.exchange
        body = attempt.passage.forward(request, attempt.model, attempt.max_tokens)
        if self._guards is not None:
            body = self._guards.sent(attempt, body)
        try:
            hold = attempt.reserve()
        except LeaseNeeded as needed:
            hold = await attempt.lease_and_reserve(needed)
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
        sent_at = time.monotonic()
        try:
            if target.provider.kind == "any-llm":
                from lockgate.gateway.upstreams import any_llm

                answer: Answer = await any_llm.send(target, body, timeout=target.provider.timeout)
            else:
                answer = await self._upstream.send(
                    "POST",
                    target.url(attempt.passage.path, attempt.model),
                    headers=headers,
                    body=body,
                    timeout=target.provider.timeout,
                    stream=request.stream,
                    in_company=exchange.in_company,
                )
        except UpstreamError as error:
            attempt.sent = error.sent
            raise
        except InputError:
            attempt.sent = False
            raise
        attempt.status = answer.status
        attempt.seconds_to_headers = time.monotonic() - sent_at
        answer.mask = target.mask
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
        headers = [*passed_headers(answer), ("x-lockgate-cost-usd", f"{to_usd(call.cost):.9f}")]
        call.exchange.respond(200, headers, body)
        if keep and attempt.error_type is None and len(body) <= KEPT_BYTES:
            return body, answer.header("content-type") or "application/json"
        return None

    async def _pass_stream(
        self, attempt: Attempt, answer: Answer, may_switch: bool, keep: bool
    ) -> tuple[bytes, str] | None:
        call, exchange = attempt.call, attempt.call.exchange
        kind = answer.header("content-type") or ""
        if kind and not kind.startswith("text/event-stream"):  # no stream: a whole answer, or something else
            return await self._pass_answer(attempt, answer, keep)
        guard = self._guards.on_stream(call) if self._guards is not None else None
        stream = Stream(attempt, answer, self._metrics, guard, may_switch=may_switch, keep=keep)
        try:
            if call.ends is None:
                await self._run(attempt, stream)
            else:
                with Cut(exchange, call.ends):
                    await self._run(attempt, stream)
        except LockgateError as error:
            if not exchange.answered:
                raise
            # The status has gone out: the error is the stream's last event.
            answer.close()
            error.message = attempt.target.masked(error.message)
            is_cut = call.ends is not None and call.ends.cut
            attempt.error_type, attempt.error = "time_exceeded" if is_cut else error.code, error.message
            stream.open()
            await exchange.send(call.request.dialect.error_event(error))
        outcome = attempt.outcome
        if outcome.error is not None:
            attempt.error_type, attempt.error = "upstream_error", attempt.target.masked(outcome.error)
        attempt.settle()
        if stream.kept is not None and attempt.error_type is None and outcome.usage is not None:
            return b"".join(stream.kept), kind or "text/event-stream"
        return None

    async def _run(self, attempt: Attempt, stream: Stream) -> None:
        first_token = attempt.target.provider.first_token_timeout
        if first_token is not None:
            try:
                with attempt.call.exchange.watchman.expect(max(0.0, first_token - attempt.seconds_to_headers)):
                    await stream.run(until_begun=True)
            except TimeoutError as late:
                raise _no_output(attempt, first_token) from late
        await stream.run()

    async def _declined(self, attempt: Attempt, answer: Answer) -> Declined:
        """The provider said no. Its words go to the client, but not the key, nor what would be taken for ours."""
        body = await answer.read(1024 * 1024)
        attempt.sent = answer.status in UNKNOWN_OUTCOME or answer.status < 400
        return Declined(answer.status, body, passed_headers(answer))


def _no_output(attempt: Attempt, seconds: float) -> UpstreamError:
    name = attempt.target.provider.name
    return UpstreamError(f"provider {name!r} sent no output within {seconds:g} seconds", sent=True)
