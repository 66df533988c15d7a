"""Chat completions as they come over the wire: answers and errors into types. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from lockgate.errors import Killed, LimitExceeded, LockgateError, Refused, UpstreamError
from lockgate.money import NANO, Nano
from lockgate.results import Usage
from lockgate.runtime.model import Completion, wire_name
from lockgate.versions.model import ModelRef

COST_HEADER = "x-lockgate-cost-usd"
ROUTE_HEADER = "x-lockgate-route"
CACHE_HEADER = "x-lockgate-cache"
_KEPT = ("exact", "semantic")


def completion_of(data: bytes, headers: Mapping[str, str], model: ModelRef) -> Completion:
    """A 200 answer as a completion. Raises :class:`UpstreamError` when it is none."""
    try:
        answer = msgspec.json.decode(data)
        choice = answer["choices"][0]
        message = choice["message"]
    except (msgspec.DecodeError, UnicodeError, LookupError, TypeError):
        raise UpstreamError(
            f"model {wire_name(model)!r} answered {data[:80]!r}, which is no chat completion", sent=True
        ) from None
    return Completion(
        message=message,
        usage=usage_of(answer.get("usage")),
        cost_nano=_cost(headers.get(COST_HEADER)),
        model_served=str(answer.get("model") or model.name),
        stands_in=headers.get(ROUTE_HEADER, "").startswith("triage") or headers.get(CACHE_HEADER) in _KEPT,
        fingerprint=_text(answer.get("system_fingerprint")),
        finish_reason=choice.get("finish_reason"),
    )


def usage_of(usage: Any) -> Usage:
    """Token counts as chat completions reports them; what is missing or no number counts zero."""
    usage = usage if isinstance(usage, dict) else {}
    return Usage(
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def failure_of(status: int, headers: Mapping[str, str], data: bytes, model: ModelRef) -> LockgateError:
    """An error answer, of a provider or of the gateway, as an exception of ours."""
    failure = refusal_of(status, headers, data, f"model {wire_name(model)!r}")
    failure.paid_nano = _cost(headers.get(COST_HEADER))
    return failure


def refusal_of(status: int, headers: Mapping[str, str], data: bytes, what: str) -> LockgateError:
    """An error answer about something else than a model."""
    error = _error(data)
    said = f"{what}: {error.get('message') or f'HTTP {status}'}"
    if status == 429 and error.get("code") == LimitExceeded.code:
        final = headers.get("x-should-retry") == "false"
        retry_after = None if final else _seconds(headers.get("retry-after"))
        return LimitExceeded(
            said, limit=str(error.get("limit", "")), retry_after=retry_after, reason=_text(error.get("reason"))
        )
    if status == 403 and error.get("code") == Killed.code:
        return Killed(said, what=str(error.get("what", "")))
    if status in (401, 403):
        return Refused(said)
    named = headers.get("retry-after")
    return UpstreamError(
        said,
        sent=error.get("sent") is not False,
        upstream_status=status,
        retry_after=None if named is None else _seconds(named),
    )


def _error(data: bytes) -> dict[str, Any]:
    """An OpenAI error object's fields; the body's beginning as the message when it is none."""
    try:
        error = msgspec.json.decode(data)["error"]
    except (msgspec.DecodeError, UnicodeError, LookupError, TypeError):
        error = None
    return error if isinstance(error, dict) else {"message": data[:200].decode("utf-8", "replace")}


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _cost(header: str | None) -> Nano:
    try:
        return max(0, int(Decimal(header or "0") * NANO))
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 1.0))
    except ValueError:
        return 1.0
