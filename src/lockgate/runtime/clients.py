"""The model client of a hosted run: chat completions over HTTP, through the gateway, under the run's token."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import aiohttp
import msgspec

from lockgate.errors import LimitExceeded, Refused, UpstreamError
from lockgate.money import NANO
from lockgate.results import Usage
from lockgate.runtime.model import Completion, wire_name
from lockgate.versions.model import ModelRef

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer; a server that sends more is failing."""

COST_HEADER = "x-lockgate-cost-usd"


class GatewayClient:
    """One run's way to models. ``session`` is shared by all runs of a process; the token is this run's."""

    records_spans = True

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str, *, traceparent: str = "") -> None:
        """``base_url`` ends with ``/v1``."""
        self._session = session
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if traceparent:
            self._headers["traceparent"] = traceparent

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        payload = msgspec.json.encode({"model": wire_name(model), **body})
        try:
            async with self._session.post(
                self._url, data=payload, headers=self._headers, timeout=aiohttp.ClientTimeout(total=timeout)
            ) as response:
                data = await read_answer(response)
                if response.status != 200:
                    raise failure_of(response.status, response.headers, data, model)
                return completion_of(data, response.headers, model)
        except aiohttp.ClientConnectorError as error:
            raise UpstreamError(
                f"the gateway at {self._url} cannot be reached: {error}", sent=False, remedy="is `lockgate up` running?"
            ) from error
        except aiohttp.ClientError as error:
            raise UpstreamError(
                f"model {wire_name(model)!r}: the connection failed: {type(error).__name__}: {error}", sent=True
            ) from error


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; :class:`UpstreamError` past :data:`LARGEST_ANSWER`."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > LARGEST_ANSWER:
            raise UpstreamError(f"the answer is larger than {LARGEST_ANSWER} bytes", sent=True)
    return bytes(data)


def completion_of(data: bytes, headers: Any, model: ModelRef) -> Completion:
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


def failure_of(status: int, headers: Any, data: bytes, model: ModelRef) -> Exception:
    """An error answer as an exception of ours."""
    message, code, limit = _error(data)
    said = f"model {wire_name(model)!r}: {message or f'HTTP {status}'}"
    if status == 429 and code == "limit_exceeded":
        final = headers.get("x-should-retry") == "false"
        return LimitExceeded(said, limit=limit, retry_after=None if final else _seconds(headers.get("retry-after")))
    if status in (401, 403):
        return Refused(said)
    return UpstreamError(said, sent=True, upstream_status=status)


def _error(data: bytes) -> tuple[str, str, str]:
    """Message, code and parameter of an OpenAI error object; the body's beginning when it is none."""
    try:
        error = msgspec.json.decode(data)["error"]
        return str(error["message"]), str(error.get("code") or ""), str(error.get("param") or "")
    except (msgspec.DecodeError, UnicodeError, LookupError, TypeError, AttributeError):
        return data[:200].decode("utf-8", "replace"), "", ""


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _cost(header: str | None) -> int:
    try:
        return max(0, int(Decimal(header or "0") * NANO))
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 1.0))
    except ValueError:
        return 1.0
