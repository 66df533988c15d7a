"""Providers of kind ``any-llm``: chat completions through the library of that name (``pip install lockgate[any-llm]``).

The library talks to the provider by the provider's own SDK. Here it looks like one more upstream that speaks chat
completions, so that holds, retries, guards and records are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError, UpstreamError
from lockgate.gateway.protocols import sse
from lockgate.gateway.upstream import MAX_ANSWER, Answer

if TYPE_CHECKING:
    from lockgate.gateway.providers import Target

PARAMETERS = frozenset(
    ("model", "messages", "tools", "tool_choice", "temperature", "top_p", "max_tokens", "max_completion_tokens",
     "response_format", "stream", "stream_options", "n", "stop", "presence_penalty", "frequency_penalty", "seed",
     "user", "parallel_tool_calls", "logprobs", "top_logprobs", "logit_bias", "reasoning_effort")
)  # fmt: skip
"""What a request may say. Others would be arguments of the library's own: where to call, and with which key."""

_STATUS = {
    "AuthenticationError": 401,
    "MissingApiKeyError": 401,
    "InsufficientFundsError": 402,
    "ModelNotFoundError": 404,
    "InvalidRequestError": 400,
    "UnsupportedParameterError": 400,
    "ContextLengthExceededError": 400,
    "ContentFilterError": 400,
    "RateLimitError": 429,
    "GatewayTimeoutError": 504,
}


_NO_RETRY_OPTION: set[str] = set()


class SdkAnswer(Answer):
    """An answer of the library, in the shape of :class:`lockgate.gateway.upstream.Answer`."""

    def __init__(self, status: int, content_type: str, body: bytes, stream: AsyncIterator[Any] | None = None) -> None:
        self.status = status
        self._told = {"content-type": content_type}
        self._body = body
        self._stream = stream

    def header(self, name: str) -> str | None:
        return self._told.get(name)

    def headers(self) -> list[tuple[str, str]]:
        return list(self._told.items())

    def note(self, name: str, value: str) -> None:
        self._told[name] = value

    async def read(self, limit: int = MAX_ANSWER) -> bytes:
        if len(self._body) > limit:
            raise UpstreamError(f"the answer is longer than {limit} bytes", sent=True)
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._stream is None:
            return
        try:
            async for chunk in self._stream:
                yield sse.event(chunk.model_dump_json(exclude_none=True).encode())
        except Exception as failure:  # whatever a provider's SDK raises: it has no common ancestor
            raise UpstreamError(f"the answer broke off: {_said(failure)}", sent=True) from failure
        yield sse.event(b"[DONE]")

    def close(self) -> None:
        """The SDK closes its connection when the stream is let go."""
        self._stream = None


async def send(target: Target, body: bytes, *, timeout: float) -> SdkAnswer:
    """Ask the provider; InputError when the library, or its provider's SDK, is not installed."""
    asked: dict[str, Any] = msgspec.json.decode(body)
    unknown = sorted(asked.keys() - PARAMETERS)
    if unknown:
        raise InputError(
            f"{unknown[0]!r} cannot be asked of provider {target.provider.name!r}", remedy=f"leave {unknown[0]!r} out"
        )
    asked.setdefault("reasoning_effort", None)
    try:
        library = await asyncio.to_thread(import_module, "any_llm")  # the first time takes more than a second
    except ImportError as missing:
        raise InputError(
            f"provider {target.provider.name!r} is of kind 'any-llm', which is not installed",
            remedy="pip install 'lockgate[any-llm]'",
        ) from missing
    vendor = target.provider.vendor or target.provider.name
    asked.update(provider=vendor, api_key=target.key, api_base=target.provider.base_url or None, timeout=timeout)
    # Lockgate tries again itself, and holds for each try. An SDK that has no such option says so before it sends.
    if vendor not in _NO_RETRY_OPTION:
        asked["client_args"] = {"max_retries": 0}
    try:
        try:
            answer = await library.acompletion(**asked)
        except TypeError as unknown_option:
            if "max_retries" not in str(unknown_option):
                raise
            _NO_RETRY_OPTION.add(vendor)
            del asked["client_args"]
            answer = await library.acompletion(**asked)
    except ImportError as missing:
        raise InputError(
            f"the SDK of provider {target.provider.name!r} is not installed: {missing}",
            remedy=f"pip install 'any-llm-sdk[{vendor}]'",
        ) from missing
    except Exception as failure:  # whatever a provider's SDK raises: it has no common ancestor
        return _failed(target, failure)
    if asked.get("stream"):
        return SdkAnswer(200, "text/event-stream", b"", answer)
    return SdkAnswer(200, "application/json", answer.model_dump_json(exclude_none=True).encode())


def _failed(target: Target, failure: Exception) -> SdkAnswer:
    """What went wrong as the answer of a server; UpstreamError where no answer came."""
    status = getattr(failure, "status_code", None) or _STATUS.get(type(failure).__name__)
    if not isinstance(status, int):
        raise UpstreamError(f"provider {target.provider.name!r}: {_said(failure)}", sent=True) from failure
    error = {"message": _said(failure), "type": type(failure).__name__, "param": None, "code": None}
    answer = SdkAnswer(status, "application/json", msgspec.json.encode({"error": error}))
    pause = getattr(failure, "retry_after", None)
    if isinstance(pause, int | float | str):
        answer.note("retry-after", str(pause))
    return answer


def _said(failure: Exception) -> str:
    return str(failure)[:500] or type(failure).__name__
