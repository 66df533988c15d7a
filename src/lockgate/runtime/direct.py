"""The model client of evals: chat completions straight to the provider, priced here. No gateway, no store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec

from lockgate.errors import UpstreamError
from lockgate.money import Nano
from lockgate.results import Usage
from lockgate.runtime.clients import completion_of, failure_of, read_answer
from lockgate.runtime.model import Completion, wire_name
from lockgate.versions.model import ModelRef


class Endpoint(NamedTuple):
    """Where a provider is asked: an API root that ends with ``/v1`` (or the provider's like), and the key."""

    base_url: str
    api_key: str | None


class DirectClient:
    """Asks providers itself. ``endpoint`` finds one by name; ``price`` says what usage costs in nano-USD."""

    records_spans = False

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Callable[[str], Endpoint],
        price: Callable[[ModelRef, Usage], Nano],
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._price = price

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        base_url, api_key = self._endpoint(model.provider)
        headers = {"content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        payload = msgspec.json.encode({"model": model.name, **body})
        try:
            async with self._session.post(
                f"{base_url.rstrip('/')}/chat/completions",
                data=payload,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                data = await read_answer(response)
                if response.status != 200:
                    raise failure_of(response.status, response.headers, data, model)
                completion = completion_of(data, {}, model)
        except aiohttp.ClientConnectorError as error:
            raise UpstreamError(
                f"model {wire_name(model)!r}: {base_url} cannot be reached: {error}",
                sent=False,
                remedy="is the model server up, and its base_url in lockgate.yaml right?",
            ) from error
        except aiohttp.ClientError as error:
            raise UpstreamError(
                f"model {wire_name(model)!r}: the connection failed: {type(error).__name__}: {error}", sent=True
            ) from error
        return msgspec.structs.replace(completion, cost_nano=self._price(model, completion.usage))
