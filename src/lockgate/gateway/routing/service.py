"""The router of a gateway worker."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from yarl import URL

from lockgate.errors import LockgateError
from lockgate.gateway.calls.call import Attempt, Call
from lockgate.gateway.protocols.chat import Chat
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.routing import prefix, triage
from lockgate.gateway.routing.triage import Decision, Routing
from lockgate.limits.prices import Prices
from lockgate.money import Nano, to_usd
from lockgate.project.guards import TenantSpec
from lockgate.project.model import ResolvedProvider
from lockgate.telemetry.metrics import Registry
from lockgate.versions.model import AgentVersion, ModelRef

log = logging.getLogger(__name__)

Ask = Callable[[Call, str, Request], Awaitable[dict[str, Any]]]


class RouteMetrics:
    """Kept by a gateway worker."""

    def __init__(self, registry: Registry) -> None:
        self.decisions = registry.counter(
            "lockgate_route_total",
            "Calls of agents with a triage model, by the model that answered and the rule that chose it.",
            ("environment", "agent", "tier", "by"),
        )
        self.saved = registry.counter(
            "lockgate_route_saved_usd_total",
            "What the cheaper model's answers would have cost more from the agent's own, less what asking cost.",
            ("environment", "agent"),
        )


class Router:
    """See :class:`lockgate.gateway.calls.seams.Router`. ``ask`` is set once there is a proxy to ask through."""

    def __init__(
        self,
        *,
        version_of: Callable[[str], AgentVersion],
        provider_of: Callable[[Call], ResolvedProvider],
        tenant_of: Callable[[str], TenantSpec | None],
        prices: Prices,
        metrics: RouteMetrics,
    ) -> None:
        """``provider_of(call)`` says what the call's provider is, ``tenant_of(name)`` what holds for a tenant."""
        self.ask: Ask | None = None
        self._version_of = version_of
        self._provider_of = provider_of
        self._tenant_of = tenant_of
        self._prices = prices
        self._metrics = metrics

    async def route(self, call: Call) -> None:
        """Choose the model, and tell its provider what its prompts have in common."""
        tenant = self._tenant_of(call.identity.tenant)
        if call.run is None:
            if tenant is not None and tenant.cache is not None and tenant.cache.prefix and not tenant.no_store:
                whose = f"{call.identity.environment}/{call.identity.tenant}"
                self._hint(call, hashlib.sha256(whose.encode()).hexdigest())
            return
        version = self._version_of(call.run.behaviour_digest)
        if version.triage is not None and _is(call, version.model):
            await self._choose(call, version, version.triage)
        keeps_nothing = tenant is not None and tenant.no_store
        if version.cache is not None and version.cache.get("prefix", True) and not keeps_nothing:
            self._hint(call, call.run.effective_digest)

    def _hint(self, call: Call, key: str) -> None:
        provider = self._provider_of(call)
        asked, host = call.request, URL(provider.base_url).host or ""
        call.request = prefix.hinted(asked, provider.kind, host, key)
        if prefix.is_keyed(call.request) and not prefix.is_keyed(asked):
            call.notes["keyed for"] = host

    def directed(self, call: Call, host: str) -> None:
        """Take the hint out that was for another host: servers that merely speak alike may refuse it."""
        if call.notes.get("keyed for", host) != host:
            del call.notes["keyed for"]
            call.request = prefix.without_key(call.request)

    def settled(self, attempt: Attempt) -> None:
        """Write down what the choice saved. ``attempt`` is over and settled."""
        call, usage = attempt.call, attempt.outcome.usage
        route = call.notes.get("route")
        if route is None or usage is None:
            return
        strong, cheap, asking = route
        if (attempt.target.provider.name, attempt.model) != cheap:
            return
        saved: Nano = strong.cost(usage) - attempt.cost - asking
        call.attributes["lockgate.route.saved_usd"] = to_usd(saved)
        self._metrics.saved.add(max(0.0, to_usd(saved)), call.identity.environment, call.agent or "")

    async def _choose(self, call: Call, version: AgentVersion, cheaper: ModelRef) -> None:
        routing = msgspec.convert(version.routing or {}, Routing)
        texts = [text.text for text in call.request.texts() if text.role != "system"]
        tokens = sum(map(len, texts)) // 4
        before = call.cost
        tags = triage.tags_of(call.exchange.headers.get(triage.TAGS), () if call.run is None else call.run.origin.tags)
        decision = triage.by_rule(routing, tags, tokens)
        if decision is None:
            decision = await self._asked(call, routing, cheaper, texts)
        asking = call.cost - before
        self._metrics.decisions.add(1, call.identity.environment, call.agent or "", decision.tier, decision.by)
        call.attributes["lockgate.route.tier"] = decision.tier
        call.attributes["lockgate.route.by"] = decision.by
        call.headers.append(("x-lockgate-route", f"{decision.tier}; {decision.by}"))
        if asking:
            call.attributes["lockgate.route.asking_usd"] = to_usd(asking)
        if decision.tier == "model":
            return
        strong = self._provider_of(call)
        call.notes["route"] = (
            self._prices.price(strong.kind, strong.name, call.model),
            (cheaper.provider, cheaper.name),
            asking,
        )
        call.provider, call.model = cheaper.provider, cheaper.name
        call.request = triage.with_parameters(call.request, cheaper)

    async def _asked(self, call: Call, routing: Routing, cheaper: ModelRef, texts: list[str]) -> Decision:
        if self.ask is None:
            return Decision("model", "default")
        model = f"{cheaper.provider}/{cheaper.name}"
        body = triage.classification(routing, model, texts)
        try:
            answer = await self.ask(call, model, Chat().read(json.dumps(body).encode()))
            said = answer["choices"][0]["message"]["content"]
        except (LookupError, TypeError, LockgateError) as failure:
            # Nobody could say that it is easy, so it is not.
            log.warning("the triage model %s did not answer: %s", model, failure)
            return Decision("model", "unanswered")
        return triage.by_word(said if isinstance(said, str) else "")


def _is(call: Call, model: ModelRef) -> bool:
    return (call.provider, call.model) == (model.provider, model.name)
