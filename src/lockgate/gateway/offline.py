"""A version's models without a gateway, as evaluations ask them: with the same checks, and the same choice of model.

What a gate says of a version has to hold for what is served, so guardrails and triage are part of both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from lockgate.gateway.guardrails import canaries
from lockgate.gateway.guardrails.answers import message
from lockgate.gateway.guardrails.model import Outcome
from lockgate.gateway.guardrails.policy import Policy, compile_policy
from lockgate.gateway.guardrails.requests import checked_request, judging
from lockgate.gateway.guardrails.stages import Chain, blocked, outcomes_of
from lockgate.gateway.protocols.chat import Chat
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.routing import triage
from lockgate.gateway.routing.triage import Routing
from lockgate.results import Usage
from lockgate.versions.model import AgentVersion, ModelRef


class Answered(Protocol):
    """What a model answered; see :class:`lockgate.runtime.model.Completion`."""

    @property
    def message(self) -> dict[str, Any]: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def cost_nano(self) -> int: ...


class Client(Protocol):
    """The way to models; see :class:`lockgate.runtime.model.ModelClient`."""

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Any: ...


def governed(client: Any, version: AgentVersion) -> Any:
    """The client with the version's own checks and triage around it; the client itself where it has none."""
    policy = compile_policy(
        version.guardrails,
        canary=canaries.token_for(version.behaviour_digest, b"offline"),
        own_prompt=version.system_prompt,
    )
    return _Governed(client, version, policy) if policy or version.triage is not None else client


class _Governed:
    records_spans = False

    def __init__(self, client: Client, version: AgentVersion, policy: Policy) -> None:
        self._client = client
        self._version = version
        self._policy = policy

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Any:
        """As the client's own. Raises :class:`~lockgate.errors.Blocked` where a guardrail stops it."""
        policy, spent, stands_in = self._policy, [Usage(), 0], False
        request = Chat().read(json.dumps({"model": f"{model.provider}/{model.name}", **body}).encode())
        if policy.input:
            outcomes = outcomes_of(policy.input, "input")
            request = checked_request(request, request.texts(), policy, outcomes)
            await self._judge(request, outcomes, timeout, spent)
        if policy.planted is not None:
            system = next((text for text in request.texts() if text.role == "system"), None)
            if system is not None:
                request = request.with_texts({system.place: canaries.planted(system.text, policy.planted)})
        if (model.provider, model.name) == (self._version.model.provider, self._version.model.name):
            asked_of = model
            model, request = await self._choose(model, request, timeout, spent)
            stands_in = model is not asked_of
        asked = {name: request.decoded(name) for name in request.fields if name != "model"}
        completion = await self._client.complete(model, asked, timeout=timeout)
        outcomes = outcomes_of(policy.output, "output")
        checked = message(completion.message, lambda text: Chain(policy.output, outcomes).whole(text))
        return msgspec.structs.replace(
            completion,
            message=checked,
            usage=completion.usage + spent[0],
            cost_nano=completion.cost_nano + spent[1],
            stands_in=stands_in,
        )

    async def _judge(self, request: Request, outcomes: Sequence[Outcome], timeout: float, spent: list[Any]) -> None:
        for guard, outcome in zip(self._policy.input, outcomes, strict=True):
            texts = [text for text in request.texts() if text.role in ("user", "tool") and text.text.strip()]
            if guard.guard != "injection" or guard.model is None or not texts or outcome.findings:
                continue
            model = ModelRef(provider=guard.model.provider, name=guard.model.name)
            said = await self._ask(model, judging(guard.model.wire_name, texts), timeout, spent)
            if said.strip().lower().startswith("yes") and guard.action == "block":
                raise blocked(outcome, "a model takes it for a prompt injection")

    async def _choose(
        self, model: ModelRef, request: Request, timeout: float, spent: list[Any]
    ) -> tuple[ModelRef, Request]:
        cheaper = self._version.triage
        if cheaper is None:
            return model, request
        routing = msgspec.convert(self._version.routing or {}, Routing)
        texts = [text.text for text in request.texts() if text.role != "system"]
        decision = triage.by_rule(routing, (), sum(map(len, texts)) // 4)
        if decision is None:
            body = triage.classification(routing, f"{cheaper.provider}/{cheaper.name}", texts)
            decision = triage.by_word(await self._ask(cheaper, body, timeout, spent))
        if decision.tier == "model":
            return model, request
        return cheaper, triage.with_parameters(request, cheaper)

    async def _ask(self, model: ModelRef, body: dict[str, Any], timeout: float, spent: list[Any]) -> str:
        asked = {name: value for name, value in body.items() if name != "model"}
        answer = await self._client.complete(model, asked, timeout=timeout)
        spent[0], spent[1] = spent[0] + answer.usage, spent[1] + answer.cost_nano
        content = answer.message.get("content")
        return content if isinstance(content, str) else ""
