"""A model client for tests that need no HTTP: what a run asks is answered in this process.

model = FakeModel([call("read_orders", order_id="A-17"), "It is on its way."])
result = await LocalRunner(version, model, code).run("where is order A-17?")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lockgate.errors import UpstreamError
from lockgate.results import Usage
from lockgate.runtime.model import Completion, wire_name
from lockgate.testing.replies import ModelRequest, Reply, finish_reason, message_of, reply_of, responder_of, usage_of
from lockgate.versions.model import ModelRef


class FakeModel:
    """A :class:`~lockgate.runtime.model.ModelClient`.

    ``responses`` as for :class:`~lockgate.testing.FakeModelServer`; an exception among them is raised. ``latency`` is
    in seconds, ``price`` in nano-USD. What was asked is in ``requests``, oldest first.
    """

    records_spans = False

    def __init__(
        self, responses: Any = "ok", *, latency: float = 0.0, price: Callable[[Usage], int] = lambda usage: 0
    ) -> None:
        self.requests: list[ModelRequest] = []
        self._responder = responder_of(responses)
        self._latency = latency
        self._price = price

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        request = ModelRequest(path="/v1/chat/completions", headers={}, body={"model": wire_name(model), **body})
        self.requests.append(request)
        response = self._responder(request)
        if isinstance(response, Exception):
            raise response
        reply = reply_of(response)
        async with asyncio.timeout(timeout):
            await asyncio.sleep(self._latency if reply.latency is None else reply.latency)
            if reply.failure == "hang":
                await asyncio.Event().wait()
        return self._completion(request, reply, model)

    def _completion(self, request: ModelRequest, reply: Reply, model: ModelRef) -> Completion:
        if reply.failure is not None or reply.status >= 400:
            status = reply.status if reply.failure is None else None
            raise UpstreamError(
                reply.error or f"the fake model failed: {reply.failure}", sent=True, upstream_status=status
            )
        request.answered = True
        usage = usage_of(request, reply)
        return Completion(
            message=message_of(reply),
            usage=usage,
            cost_nano=self._price(usage),
            model_served=reply.model or model.name,
            finish_reason=finish_reason(reply),
        )
