"""The model client of evals: chat completions straight to the provider, priced here. No gateway, no store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from lockgate.money import Nano
from lockgate.results import Usage
from lockgate.runtime.clients import Send, ask
from lockgate.runtime.model import Completion
from lockgate.versions.model import ModelRef


class Endpoint(NamedTuple):
    """Where a provider is asked: an API root that ends with ``/v1`` (or the provider's like), and the key."""

    base_url: str
    api_key: str | None
    headers: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()  # those of the headers' values that nobody is to see


class DirectClient:
    """Asks providers itself. ``endpoint`` finds one by name; ``price`` says what usage costs in nano-USD."""

    records_spans = False

    def __init__(
        self,
        send: Send,
        endpoint: Callable[[str], Endpoint],
        price: Callable[[ModelRef, Usage], Nano],
    ) -> None:
        self._send = send
        self._endpoint = endpoint
        self._price = price

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        base_url, api_key, further, secrets = self._endpoint(model.provider)
        headers = {**dict(further), **({"authorization": f"Bearer {api_key}"} if api_key else {})}
        asked = {"model": model.name, **body}
        completion = await ask(self._send, base_url, headers, asked, model, timeout, secrets)
        return msgspec.structs.replace(completion, cost_nano=self._price(model, completion.usage))
