"""The cache of a gateway worker: what may come from it, and what goes into it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from time import time_ns
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.clock import Clock
from lockgate.errors import LockgateError, Unavailable, UpstreamError
from lockgate.gateway.cache import keys
from lockgate.gateway.cache.keys import Scope
from lockgate.gateway.cache.store import Answers, Kept
from lockgate.gateway.calls.call import Call
from lockgate.gateway.calls.seams import Hit
from lockgate.gateway.origins import CACHE, cache_wish
from lockgate.gateway.protocols.embeddings import Embeddings
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.routing import triage
from lockgate.money import to_usd
from lockgate.project.guards import TenantSpec
from lockgate.telemetry.metrics import Registry
from lockgate.versions.model import AgentVersion

if TYPE_CHECKING:
    import numpy as np

Ask = Callable[[Call, str, Request], Awaitable[dict[str, Any]]]
_LARGEST_QUESTION = 8000  # characters
_WAIT_SECONDS = 60.0
"""Seconds a call waits for the answer that another one is just fetching."""


class Semantic(msgspec.Struct, frozen=True):
    """Questions that mean the same."""

    provider: str
    name: str
    threshold: float = 0.95

    @property
    def wire_name(self) -> str:
        return f"{self.provider}/{self.name}"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a version's (or a tenant's) cache may do; see :class:`lockgate.project.guards.CacheSpec`."""

    exact: bool = True
    ttl: float = 3600.0
    semantic: Semantic | None = None
    tools: bool = False
    prefix: bool = True
    random: bool = False


class CacheMetrics:
    """Kept by a gateway worker."""

    def __init__(self, registry: Registry) -> None:
        self._lookups = registry.counter(
            "lockgate_cache_lookups_total",
            "Calls that could have been answered from the cache, by what came of it (exact, semantic, miss, off).",
            ("environment", "agent", "result"),
        )
        self._saved = registry.counter(
            "lockgate_cache_saved_usd_total",
            "What answers from the cache cost the first time.",
            ("environment", "agent"),
        )

    def note(self, call: Call, result: str, saved_nano: int = 0) -> None:
        labels = call.identity.environment, call.agent or ""
        self._lookups.add(1, *labels, result)
        if saved_nano:
            self._saved.add(to_usd(saved_nano), *labels)


class _Asked:
    """What is known of a call between its lookup and its answer."""

    __slots__ = ("config", "fetching", "key", "question", "scope", "vector")

    def __init__(self, config: Config, key: bytes) -> None:
        self.config = config
        self.key = key
        self.fetching: asyncio.Future[None] | None = None  # that others may wait for
        self.scope: bytes | None = None
        self.question = ""
        self.vector: np.ndarray | None = None


class AnswerCache:
    """See :class:`lockgate.gateway.calls.seams.Cache`. ``ask`` is set once there is a proxy to ask through."""

    def __init__(
        self,
        answers: Answers,
        *,
        version_of: Callable[[str], AgentVersion],
        tenant_of: Callable[[str], TenantSpec | None],
        metrics: CacheMetrics,
        clock: Clock,
    ) -> None:
        self.ask: Ask | None = None
        self._answers = answers
        self._version_of = version_of
        self._tenant_of = tenant_of
        self._metrics = metrics
        self._clock = clock
        self._configs: dict[tuple[str, int], tuple[TenantSpec | None, Config | None, str]] = {}
        self._fetching: dict[bytes, asyncio.Future[None]] = {}

    def config(self, call: Call) -> Config | None:
        """What the cache may do for a call; None when it is off."""
        return self._settings(call)[1]

    def _settings(self, call: Call) -> tuple[TenantSpec | None, Config | None, str]:
        tenant = self._tenant_of(call.identity.tenant)
        digest = call.run.behaviour_digest if call.run is not None else ""
        known = self._configs.get((digest, id(tenant)))
        if known is not None and known[0] is tenant:
            return known
        written: dict[str, Any] | None = None
        if digest:
            written = self._version_of(digest).cache
        elif tenant is not None and tenant.cache is not None:
            written = tenant.cache.model_dump()
        config = None if written is None else msgspec.convert(written, Config)
        policy = "" if tenant is None else hashlib.sha256(tenant.model_dump_json().encode()).hexdigest()
        if len(self._configs) > 512:
            self._configs.clear()
        found = self._configs[digest, id(tenant)] = tenant, config, policy
        return found

    # --- the seam ---------------------------------------------------------------------------------------------

    def wants(self, call: Call) -> bool:
        """Whether the call may be answered from the cache, or its answer kept."""
        tenant, config, _ = self._settings(call)
        if config is None or not config.exact or (tenant is not None and tenant.no_store):
            return False
        if _wish(call) == "bypass":
            reason: str | None = "bypass"
        else:
            reason = _unfit(call.request, config)
        if reason is not None:
            call.headers.append((CACHE, f"off; {reason}"))
            self._metrics.note(call, "off")
            return False
        return True

    async def lookup(self, call: Call) -> Hit | None:
        """The answer that was given before."""
        _, config, policy = self._settings(call)
        assert config is not None
        run, tags = call.run, call.exchange.headers.get(triage.TAGS)
        chosen_by = () if run is None else tuple(sorted(triage.tags_of(tags, run.origin.tags)))
        scope = Scope(call.identity.tenant, call.identity.environment, call.effective_digest or "", policy, chosen_by)
        asked = _Asked(config, keys.key_of(call.request, call.provider, call.model, scope))
        call.notes["cache"] = asked
        if _wish(call) == "refresh":
            self._missed(call, "miss; refresh")
            return None
        now = self._clock()
        kept = self._answers.get(asked.key, now)
        if kept is None:
            under_way = self._fetching.get(asked.key)
            if under_way is None:
                asked.fetching = self._fetching[asked.key] = asyncio.get_running_loop().create_future()
            else:  # once only: if nothing was kept then, a crowd of these would be asked one after the other
                await asyncio.wait((under_way,), timeout=_WAIT_SECONDS)
                now = self._clock()
                kept = self._answers.get(asked.key, now)
        if kept is not None:
            return self._found(call, kept, "exact", now)
        if config.semantic is not None:
            near = await self._similar(call, asked, config.semantic, scope, now)
            if near is not None:
                return near
        self._missed(call, "miss")
        return None

    async def store(self, call: Call, body: bytes, content_type: str) -> None:
        """Keep an answer that was given, settled and not withheld."""
        asked: _Asked | None = call.notes.get("cache")
        if asked is None or _unfit(call.request, asked.config) is not None:  # the model that was chosen may draw
            return
        if call.request.stream:
            if not keys.storable_stream(body):
                return
        else:
            try:
                decoded = msgspec.json.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return
            if not isinstance(decoded, dict) or not keys.storable(call.request, decoded):
                return
        now = self._clock()
        kept = Kept(body, content_type, call.cost, now, now + asked.config.ttl)
        self._answers.put(asked.key, kept, now)
        if asked.scope is not None and asked.vector is not None:
            self._answers.put_question(asked.scope, asked.key, asked.question, asked.vector, kept.expires_at)

    def leave(self, call: Call) -> None:
        """Let go on who waits for this call's answer."""
        asked: _Asked | None = call.notes.get("cache")
        if asked is not None and asked.fetching is not None:
            self._fetching.pop(asked.key, None)
            asked.fetching.set_result(None)

    # --- inside -----------------------------------------------------------------------------------------------

    def _found(self, call: Call, kept: Kept, kind: str, now: float, similarity: float | None = None) -> Hit:
        self._metrics.note(call, kind, kept.cost_nano)
        call.headers.append(("age", str(max(0, int(now - kept.made_at)))))
        call.headers.append(("x-lockgate-saved-usd", f"{to_usd(kept.cost_nano):.9f}"))
        return Hit(kept.body, kept.content_type, kind, kept.cost_nano, similarity)

    def _missed(self, call: Call, said: str) -> None:
        self._metrics.note(call, "miss")
        call.headers.append((CACHE, said))
        call.attributes["lockgate.cache.hit"] = "miss"

    async def _similar(self, call: Call, asked: _Asked, semantic: Semantic, scope: Scope, now: float) -> Hit | None:
        split = keys.question_of(call.request, call.provider, call.model, scope)
        if split is None or self.ask is None or not split[1].strip() or len(split[1]) > _LARGEST_QUESTION:
            return None
        # The embedder is a part of the scope: vectors of two models have nothing to do with each other.
        place = hashlib.sha256(split[0] + semantic.wire_name.encode()).digest()
        began = time_ns()
        try:
            vector = await self._vector(call, semantic, split[1])
        except (Unavailable, LockgateError) as failure:
            call.attributes["lockgate.cache.error"] = failure.code
            return None
        call.attributes["lockgate.cache.embedding_ms"] = round((time_ns() - began) / 1e6, 3)
        asked.scope, asked.question, asked.vector = place, split[1], vector
        for near in self._answers.near(place, vector, semantic.threshold, now):
            kept = self._answers.get(near.key, now) if keys.sure(near.text, split[1]) else None
            if kept is not None:
                return self._found(call, kept, "semantic", now, round(near.similarity, 4))
        return None

    async def _vector(self, call: Call, semantic: Semantic, text: str) -> np.ndarray:
        import numpy as np

        assert self.ask is not None
        body = msgspec.json.encode({"model": semantic.wire_name, "input": text, "encoding_format": "float"})
        answer = await self.ask(call, semantic.wire_name, Embeddings().read(body))
        try:
            vector = np.asarray(answer["data"][0]["embedding"], dtype=np.float32)
        except (LookupError, TypeError, ValueError) as wrong:
            raise UpstreamError(f"{semantic.wire_name!r} answered with no vector", sent=True) from wrong
        length = float(np.linalg.norm(vector))
        if vector.ndim != 1 or not np.isfinite(length) or length == 0:
            raise UpstreamError(f"{semantic.wire_name!r} answered with no vector", sent=True)
        return vector / length


def _wish(call: Call) -> str:
    """Whether the caller, or whoever started the run that calls, wants no answer from the cache."""
    return cache_wish(call.exchange.headers) or ("" if call.run is None else call.run.origin.cache)


def _unfit(request: Request, config: Config) -> str | None:
    """Why a request's answer is not to be given again, or None."""
    name = request.dialect.name
    if name in ("embeddings", "rerank"):
        return None if not request.references else "references"
    if name not in ("chat", "messages", "responses"):
        return "protocol"
    if request.references:
        return "references"  # what stands behind a URL may change
    if request.unbounded is not None:
        return request.unbounded  # tools that the provider runs itself
    if name == "responses" and any(field in request.fields for field in ("previous_response_id", "conversation")):
        return "conversation"
    if config.random:
        return None
    temperature = request.decoded("temperature")
    if isinstance(temperature, (int, float)) and not isinstance(temperature, bool) and temperature == 0:
        return None
    return "temperature"
