"""What stays of an attempt: a span, and the metrics."""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import Any, NamedTuple

from lockgate.gateway.calls.call import Attempt, Call
from lockgate.money import to_usd
from lockgate.telemetry.context import new_span_id
from lockgate.telemetry.metrics import MOST_SERIES, Counts, GenAI, Observations
from lockgate.telemetry.model import CLIENT, ERROR, OK, Span

Kind = tuple[str, str, str, str, str | None]
"""Operation, provider, the provider's name for the model, environment, agent: what many calls have in common."""


class _Common(NamedTuple):
    """What is the same on every attempt of a kind, made once."""

    name: str
    model: str
    attributes: dict[str, Any]
    seconds: Observations  # of those that met no error
    input_tokens: Observations
    output_tokens: Observations
    cost_usd: Counts


class Recorder:
    """Writes down attempts, and the calls that came to none. One per worker."""

    def __init__(self, emit: Callable[[Span], None], metrics: GenAI, machine: str = "") -> None:
        """``machine`` is this one's name where several share a ledger."""
        self._emit = emit
        self._metrics = metrics
        self._machine = machine
        self._known: dict[Kind, _Common] = {}

    def attempt(self, attempt: Attempt) -> None:
        """Write an attempt down: one span that carries its tokens and its cost, and nothing else does."""
        call, target, outcome = attempt.call, attempt.target, attempt.outcome
        exchange, end_ns, agent = call.exchange, time_ns(), call.agent
        kind = call.request.dialect.operation, target.provider.name, attempt.model, call.identity.environment, agent
        common = self._known.get(kind) or self._new(kind)
        attributes = _attributes(call, common.attributes)
        if attempt.max_tokens:
            attributes["gen_ai.request.max_tokens"] = attempt.max_tokens
        attributes["server.address"] = target.host
        if outcome.model is not None:
            attributes["gen_ai.response.model"] = outcome.model
            attributes["gen_ai.response.id"] = outcome.id
            attributes["gen_ai.response.finish_reasons"] = outcome.finish_reasons
        if outcome.fingerprint is not None:
            attributes["openai.response.system_fingerprint"] = outcome.fingerprint
        if attempt.status:
            attributes["http.response.status_code"] = attempt.status
        if attempt.number > 1:
            attributes["lockgate.attempt"] = attempt.number
            attributes["lockgate.model.asked"] = call.request.model
        if attempt.is_hedge:
            attributes["lockgate.hedge"] = True
        usage, cost, error_type = outcome.usage, attempt.cost, attempt.error_type
        input_tokens = output_tokens = 0
        if usage is not None:
            input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
            if usage.cached_tokens:
                attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        elif cost:
            attributes["lockgate.cost_is_bound"] = True
            if self._machine:  # on whose accounts it can be corrected
                attributes["lockgate.machine"] = self._machine
        # With more than fifteen arguments by name the interpreter packs them into a dict first: four times the price.
        span = Span(
            trace_id=exchange.trace_id,
            span_id=attempt.span_id,
            parent_id=exchange.parent_id,
            name=common.name,
            kind=CLIENT,
            start_ns=attempt.started_ns,
            end_ns=end_ns,
            status=OK if error_type is None else ERROR,
            agent=agent,
            model=common.model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_nano=cost,
            attributes=attributes,
        )
        seconds = common.seconds
        if error_type is not None:
            attributes["error.type"] = error_type
            span.status_message = attempt.error
            seconds = self._metrics.operation_seconds.series(*kind[:3], error_type)
        self._hand_over(span, call)
        seconds.observe((end_ns - attempt.started_ns) / 1e9)
        if usage is not None:
            common.input_tokens.observe(input_tokens)
            common.output_tokens.observe(output_tokens)
        if cost:
            common.cost_usd.add(to_usd(cost))

    def unasked(self, call: Call, error_type: str | None, error: str = "") -> None:
        """Write down a call that no upstream was asked for: refused before, or answered from the cache."""
        kind = call.request.dialect.operation, call.provider, call.model, call.identity.environment
        attributes = _attributes(call, _common_attributes(*kind))
        if error_type is not None:
            attributes["error.type"] = error_type
        span = Span(
            trace_id=call.exchange.trace_id,
            span_id=new_span_id(),
            parent_id=call.exchange.parent_id,
            name=f"{kind[0]} {call.model}",
            kind=CLIENT,
            start_ns=call.exchange.started_ns,
            end_ns=time_ns(),
            status=OK if error_type is None else ERROR,
            status_message=error,
            agent=call.agent,
            model=call.request.model,
            attributes=attributes,
        )
        self._hand_over(span, call)

    def _hand_over(self, span: Span, call: Call) -> None:
        run = call.run
        if run is not None:
            span.run_id, span.effective_digest = run.run_id, run.effective_digest
        self._emit(span)

    def _new(self, kind: Kind) -> _Common:
        if len(self._known) >= MOST_SERIES:  # callers name models
            self._known.clear()
        operation, provider, model, environment, agent = kind
        labels, wire_name, metrics = (operation, provider, model), f"{provider}/{model}", self._metrics
        common = self._known[kind] = _Common(
            name=f"{operation} {model}",
            model=wire_name,
            attributes=_common_attributes(operation, provider, model, environment),
            seconds=metrics.operation_seconds.series(*labels, ""),
            input_tokens=metrics.tokens.series(*labels, "input"),
            output_tokens=metrics.tokens.series(*labels, "output"),
            cost_usd=metrics.cost_usd.series(environment, agent or "", wire_name),
        )
        return common


def _common_attributes(operation: str, provider: str, model: str, environment: str) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "lockgate.environment": environment,
    }


def _attributes(call: Call, common: dict[str, Any]) -> dict[str, Any]:
    identity = call.identity
    attributes = common.copy()
    attributes["lockgate.tenant"] = identity.tenant
    attributes["lockgate.key"] = identity.key_id
    attributes["lockgate.request_id"] = call.exchange.request_id
    if call.request.stream:
        attributes["gen_ai.output.stream"] = True
    if call.attributes:
        attributes.update(call.attributes)
    return attributes
