"""The model client of a hosted run: chat completions over HTTP, through the gateway, under the run's token.

How a question leaves this process is :data:`Send`'s to say: a hosted run has the session of its host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lockgate.errors import LockgateError, UpstreamError
from lockgate.project.secrets.masking import without
from lockgate.runtime.model import Completion, wire_name
from lockgate.runtime.wire import completion_of, failure_of
from lockgate.tls import aiohttp
from lockgate.versions.model import ModelRef

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer; a server that sends more is failing."""


class Sent(NamedTuple):
    """What came back: the names of ``headers`` are in lower case, or told apart by no case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Send = Callable[[str, Mapping[str, str], bytes, float], Awaitable[Sent]]
"""Posts a body to a URL under these headers, within so many seconds. Raises UpstreamError, and TimeoutError when no
answer came in time."""


class GatewayClient:
    """One run's way to models. ``session`` is shared by all runs of a process; the token is this run's."""

    records_spans = True

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str, *, traceparent: str = "") -> None:
        """``base_url`` ends with ``/v1``."""
        self._send = by_session(session)
        self._base_url = base_url
        # The loop tries a version's fallbacks itself: each is a step of the run.
        self._headers = {"authorization": f"Bearer {token}", "x-lockgate-fallbacks": "off"}
        if traceparent:
            self._headers["traceparent"] = traceparent

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        asked = {"model": wire_name(model), **body}
        return await ask(self._send, self._base_url, self._headers, asked, model, timeout)


async def ask(
    send: Send,
    base_url: str,
    headers: Mapping[str, str],
    body: dict[str, Any],
    model: ModelRef,
    timeout: float,
    secrets: Sequence[str] = (),
) -> Completion:
    """One chat completion over HTTP. Raises what :class:`~lockgate.runtime.model.ModelClient` says.

    No error repeats the credential in ``headers``, nor the others among them that ``secrets`` names, whatever the
    other side answers.
    """
    secrets = (headers.get("authorization", "").removeprefix("Bearer "), *secrets)
    url = f"{base_url.rstrip('/')}/chat/completions"
    try:
        status, answered, data = await _sent(
            send, url, {"content-type": "application/json", **headers}, msgspec.json.encode(body), model, timeout
        )
        if status != 200:
            # before it is cut to length: a part of the credential could not be found again
            raise failure_of(status, answered, without(data, *secrets), model)
        try:
            return completion_of(data, answered, model)
        except UpstreamError:
            return completion_of(without(data, *secrets), answered, model)
    except LockgateError as error:
        error.message = without(error.message.encode("utf-8", "replace"), *secrets).decode()
        error.args = (error.message,)
        raise


async def _sent(send: Send, url: str, headers: Mapping[str, str], body: bytes, model: ModelRef, timeout: float) -> Sent:
    try:
        return await send(url, headers, body, timeout)
    except UpstreamError as error:
        error.message = f"model {wire_name(model)!r}: {error.message}"
        if not error.sent:
            error.remedy = "is the server up, and its address right?"
        raise


def by_session(session: aiohttp.ClientSession) -> Send:
    """Sends with a session of aiohttp's."""

    async def send(url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Sent:
        try:
            async with session.post(
                url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                allow_redirects=False,  # would carry the token elsewhere
            ) as response:
                return Sent(response.status, response.headers, await _read(response))
        except TimeoutError:  # some of aiohttp's are ClientErrors as well
            raise
        except aiohttp.ClientConnectorError as error:
            raise UpstreamError(f"{url} cannot be reached: {error.strerror or error}", sent=False) from error
        except aiohttp.ClientError as error:
            raise UpstreamError(f"the connection failed: {type(error).__name__}: {error}", sent=True) from error

    return send


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; :class:`UpstreamError` past :data:`LARGEST_ANSWER`."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > LARGEST_ANSWER:
            raise UpstreamError(f"the answer is larger than {LARGEST_ANSWER} bytes", sent=True)
    return bytes(data)
