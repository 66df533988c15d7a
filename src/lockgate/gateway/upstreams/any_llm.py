"""Providers of kind ``any-llm``: chat completions through the library of that name (``pip install lockgate[any-llm]``).

The library talks to the provider by the provider's own SDK. Here it looks like one more upstream that speaks chat
completions, so that holds, retries, guards and records are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError, UpstreamError
from lockgate.gateway.protocols import sse
from lockgate.gateway.upstream import STREAM_SECONDS, Answer
from lockgate.gateway.watchman import Watchman

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


class SdkSource:
    """An answer of the library, as a :class:`lockgate.gateway.upstream.Source` and its content."""

    def __init__(self, status: int, content_type: str, body: bytes, stream: AsyncIterator[Any] | None = None) -> None:
        self.status = status
        self.headers = {"content-type": content_type}
        self._rest = body
        self._stream = stream

    @property
    def content(self) -> SdkSource:
        return self

    def is_eof(self) -> bool:
        return self._stream is None

    def read_nowait(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    async def readany(self) -> bytes:
        if self._stream is None:
            return self.read_nowait()
        try:
            chunk = await anext(self._stream, None)
        except (asyncio.CancelledError, TimeoutError):
            raise
        except Exception as failure:  # whatever a provider's SDK raises: it has no common ancestor
            raise UpstreamError(f"the answer broke off: {_said(failure)}", sent=True) from failure
        if chunk is None:
            self._stream = None
            return sse.event(b"[DONE]")
        return sse.event(chunk.model_dump_json(exclude_none=True).encode())

    def close(self) -> None:
        """The SDK closes its connection when the stream is let go."""
        self._stream = None


async def send(target: Target, body: bytes, *, timeout: float) -> Answer:
    """Ask the provider; InputError when the library, or its provider's SDK, is not installed."""
    try:
        asked: dict[str, Any] = msgspec.json.decode(body)
    except RecursionError as deep:
        raise InputError("the request is nested too deep", remedy="nest it less deep") from deep
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
        return _answer(_failed(target, failure), timeout)
    if asked.get("stream"):
        return _answer(SdkSource(200, "text/event-stream", b"", aiter(answer)), timeout)
    body = answer.model_dump_json(exclude_none=True).encode()
    return _answer(SdkSource(200, "application/json", body), timeout)


def _answer(source: SdkSource, timeout: float) -> Answer:
    return Answer(source, Watchman(), monotonic() + STREAM_SECONDS, timeout)


def _failed(target: Target, failure: Exception) -> SdkSource:
    """What went wrong as the answer of a server; UpstreamError where no answer came."""
    status = getattr(failure, "status_code", None) or _STATUS.get(type(failure).__name__)
    if not isinstance(status, int):
        raise UpstreamError(f"provider {target.provider.name!r}: {_said(failure)}", sent=True) from failure
    error = {"message": _said(failure), "type": type(failure).__name__, "param": None, "code": None}
    source = SdkSource(status, "application/json", msgspec.json.encode({"error": error}))
    pause = getattr(failure, "retry_after", None)
    if isinstance(pause, int | float | str):
        source.headers["retry-after"] = str(pause)
    return source


def _said(failure: Exception) -> str:
    return str(failure)[:500] or type(failure).__name__
