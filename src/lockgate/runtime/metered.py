"""The model client of a trial: within the evaluation's money, at the provider's pace, and never paid for twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from lockgate.evals.running.meter import METER, Meter
from lockgate.money import Nano
from lockgate.runtime.model import Completion, ModelClient, wire_name
from lockgate.versions.model import ModelRef

Bound = Callable[[ModelRef, int, int], Nano]
"""The most a call may cost: of a model, for a request of so many bytes and so many output tokens."""


class MeteredClient:
    """Asks through ``client`` what a trial asks. Outside of a trial it only passes on.

    A trial that was cut off (a kill, a crash) is answered from what it had paid for, as long as it asks the same.
    """

    records_spans = False

    def __init__(self, client: ModelClient, bound: Bound, *, role: str = "agent") -> None:
        self._client = client
        self._bound = bound
        self._role = role

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        meter = METER.get()
        if meter is None:
            return await self._client.complete(model, body, timeout=timeout)
        left = meter.check_tokens()
        if left is not None:
            asked = body.get("max_tokens")
            body = {**body, "max_tokens": min(asked, left) if isinstance(asked, int) and asked > 0 else left}
        completion = await self._answer(meter, model, body, timeout)
        meter.check_used()
        return completion

    async def _answer(self, meter: Meter, model: ModelRef, body: dict[str, Any], timeout: float) -> Completion:
        encoded = msgspec.json.encode([self._role, wire_name(model), body])
        key = hashlib.sha256(encoded).hexdigest()
        kept = meter.replay(key)
        if kept is not None:
            known = msgspec.convert(kept, Completion)
            meter.replayed_nano += known.cost_nano
            meter.tokens += known.usage.total_tokens
            return known

        def bound() -> int:
            tokens = body.get("max_tokens")
            return self._bound(model, len(encoded), tokens if isinstance(tokens, int) else model.max_tokens)

        completion: Completion = await meter.call(
            lambda: self._client.complete(model, body, timeout=timeout), bound=bound, timeout=timeout
        )
        meter.keep(key, msgspec.to_builtins(completion))
        return completion
