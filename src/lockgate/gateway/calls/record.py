"""What stays of an attempt: a span, and the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lockgate.gateway.calls.call import Attempt, Call
from lockgate.money import to_usd
from lockgate.results import Usage
from lockgate.telemetry.context import new_span_id
from lockgate.telemetry.metrics import GenAI
from lockgate.telemetry.model import CLIENT, ERROR, OK, Span

_NOTHING = Usage()


def record_attempt(attempt: Attempt, emit: Callable[[Span], None], metrics: GenAI) -> None:
    """Write an attempt down: one span that carries its tokens and its cost, and nothing else does."""
    call, outcome, provider = attempt.call, attempt.outcome, attempt.target.provider
    exchange, end_ns = call.exchange, time.time_ns()
    operation = call.request.dialect.operation
    attributes = _attributes(call, operation, provider.name, attempt.model)
    if attempt.max_tokens:
        attributes["gen_ai.request.max_tokens"] = attempt.max_tokens
    attributes["server.address"] = attempt.target.host
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
    if attempt.error_type is not None:
        attributes["error.type"] = attempt.error_type
    usage = outcome.usage
    if usage is None and attempt.cost:
        attributes["lockgate.cost_is_bound"] = True
    if usage is not None and usage.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    tokens = usage or _NOTHING
    run = call.run
    wire_name = (
        call.request.model
        if attempt.number == 1 and call.model == attempt.model
        else (f"{provider.name}/{attempt.model}")
    )
    emit(
        Span(
            trace_id=exchange.trace_id,
            span_id=attempt.span_id,
            parent_id=exchange.parent_id,
            name=f"{operation} {attempt.model}",
            kind=CLIENT,
            start_ns=attempt.started_ns,
            end_ns=end_ns,
            status=OK if attempt.error_type is None else ERROR,
            status_message=attempt.error,
            run_id=run.run_id if run else None,
            agent=call.agent,
            effective_digest=run.effective_digest if run else None,
            model=wire_name,
            input_tokens=tokens.input_tokens,
            output_tokens=tokens.output_tokens,
            cost_nano=attempt.cost,
            attributes=attributes,
        )
    )
    labels = (operation, provider.name, attempt.model)
    metrics.operation_seconds.observe((end_ns - attempt.started_ns) / 1e9, *labels, attempt.error_type or "")
    if usage is not None:
        metrics.tokens.observe(usage.input_tokens, *labels, "input")
        metrics.tokens.observe(usage.output_tokens, *labels, "output")
    if attempt.cost:
        metrics.cost_usd.add(to_usd(attempt.cost), call.identity.environment, call.agent or "", wire_name)


def record_unasked(call: Call, emit: Callable[[Span], None], error_type: str | None, error: str = "") -> None:
    """Write down a call that no upstream was asked for: refused before, or answered from the cache."""
    run, operation = call.run, call.request.dialect.operation
    attributes = _attributes(call, operation, call.provider, call.model)
    if error_type is not None:
        attributes["error.type"] = error_type
    emit(
        Span(
            trace_id=call.exchange.trace_id,
            span_id=new_span_id(),
            parent_id=call.exchange.parent_id,
            name=f"{operation} {call.model}",
            kind=CLIENT,
            start_ns=call.exchange.started_ns,
            end_ns=time.time_ns(),
            status=OK if error_type is None else ERROR,
            status_message=error,
            run_id=run.run_id if run else None,
            agent=call.agent,
            effective_digest=run.effective_digest if run else None,
            model=call.request.model,
            attributes=attributes,
        )
    )


def _attributes(call: Call, operation: str, provider: str, model: str) -> dict[str, Any]:
    identity = call.identity
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "lockgate.environment": identity.environment,
        "lockgate.tenant": identity.tenant,
        "lockgate.key": identity.key_id,
        "lockgate.request_id": call.exchange.request_id,
    }
    if call.request.stream:
        attributes["gen_ai.output.stream"] = True
    if call.attributes:
        attributes.update(call.attributes)
    return attributes
