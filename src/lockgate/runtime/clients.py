"""The model client of a hosted run: chat completions over HTTP, through the gateway, under the run's token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lockgate.errors import LockgateError, UpstreamError
from lockgate.project.secrets.masking import without
from lockgate.runtime.model import Completion, wire_name
from lockgate.runtime.wire import completion_of, failure_of
from lockgate.tls import aiohttp
from lockgate.versions.model import ModelRef

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer; a server that sends more is failing."""


class GatewayClient:
    """One run's way to models. ``session`` is shared by all runs of a process; the token is this run's."""

    records_spans = True

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str, *, traceparent: str = "") -> None:
        """``base_url`` ends with ``/v1``."""
        self._session = session
        self._base_url = base_url
        # The loop tries a version's fallbacks itself: each is a step of the run.
        self._headers = {"authorization": f"Bearer {token}", "x-lockgate-fallbacks": "off"}
        if traceparent:
            self._headers["traceparent"] = traceparent

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        asked = {"model": wire_name(model), **body}
        return await ask(self._session, self._base_url, self._headers, asked, model, timeout)


async def ask(
    session: aiohttp.ClientSession,
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
    try:
        async with session.post(
            f"{base_url.rstrip('/')}/chat/completions",
            data=msgspec.json.encode(body),
            headers={"content-type": "application/json", **headers},
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,  # would carry the token elsewhere
        ) as response:
            data = await _read(response)
            if response.status != 200:
                # before it is cut to length: a part of the credential could not be found again
                raise failure_of(response.status, response.headers, without(data, *secrets), model)
            try:
                return completion_of(data, response.headers, model)
            except UpstreamError:
                return completion_of(without(data, *secrets), response.headers, model)
    except LockgateError as error:
        error.message = without(error.message.encode("utf-8", "replace"), *secrets).decode()
        error.args = (error.message,)
        raise
    except TimeoutError:  # some of aiohttp's are ClientErrors as well
        raise
    except aiohttp.ClientConnectorError as error:
        raise UpstreamError(
            f"model {wire_name(model)!r}: {base_url} cannot be reached: {error.strerror or error}",
            sent=False,
            remedy="is the server up, and its address right?",
        ) from error
    except aiohttp.ClientError as error:
        raise UpstreamError(
            f"model {wire_name(model)!r}: the connection failed: {type(error).__name__}: "
            + without(str(error).encode("utf-8", "replace"), *secrets).decode(),
            sent=True,
        ) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; :class:`UpstreamError` past :data:`LARGEST_ANSWER`."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > LARGEST_ANSWER:
            raise UpstreamError(f"the answer is larger than {LARGEST_ANSWER} bytes", sent=True)
    return bytes(data)
