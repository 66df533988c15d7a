"""Where a provider's requests go in one environment, with its secret resolved: looked up once every few seconds.

A secret of a store on the network is asked for in a thread: the event loop, and so every other call, goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from lockgate.clock import Clock
from lockgate.errors import InputError, Unavailable
from lockgate.gateway.protocols.links import is_inside
from lockgate.gateway.supervisor import WORKERS_VARIABLE
from lockgate.gateway.upstream import DEFAULT_HEADERS
from lockgate.gateway.upstreams.pool import Pool
from lockgate.project.model import Project, ProjectConfig, ResolvedProvider
from lockgate.project.secrets import header_value, is_at_hand, is_reference, resolve_secret
from lockgate.project.secrets.masking import Mask
from lockgate.project.service import provider_names, resolve_provider

TellUpstream = Callable[[str, str, str, bool], None]
"""``tell(environment, provider, upstream, is_open)``: a breaker opened or closed."""

ANTHROPIC_VERSION = "2023-06-01"
"""For clients that name none."""

_AUTHORIZATION = {"anthropic": ("x-api-key", ""), "azure": ("api-key", "")}
"""How a kind of provider takes its key, where that is not as a bearer's."""
_URLS = 1000
"""How many are kept for one provider: a model's name can be anything."""
_LASTS = 1.5  # seconds until a changed file or variable, or a restarted local model, is noticed
_KEY_LASTS = 5.0  # seconds until a store on the network is asked again
_GRACE = 30.0
"""Seconds for which calls take the key they know while a store on the network is asked again."""


def workers() -> int:
    """How many workers of this machine share a provider's keys."""
    told = os.environ.get(WORKERS_VARIABLE, "")
    return int(told) if told.isdecimal() and int(told) else 1


class Target:
    """A provider as requests need it: full URLs, and the headers that carry its key."""

    __slots__ = ("_base", "_urls", "headers", "host", "key", "mask", "provider")

    def __init__(
        self,
        provider: ResolvedProvider,
        base: str,
        headers: dict[str, str],
        key: str | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.provider = provider
        self.headers = headers
        self.key = key
        self.mask = Mask(*secrets, key)
        """Of what nobody is to see of the headers: the key, and those that stand as references."""
        self.host = URL(base).host or ""
        self._base = base
        self._urls: dict[str, URL] = {}

    def url(self, path: str, model: str = "") -> URL:
        """Where ``path`` is, below the provider's base URL; ``model`` matters to providers that have it in the path."""
        version = self.provider.api_version
        key = f"{model} {path}" if version else path
        url = self._urls.get(key)
        if url is None:
            if len(self._urls) >= _URLS:
                self._urls.clear()
            if version and model and "/deployments/" not in self._base:
                path = f"/deployments/{quote(model, safe='')}{path}"
            url = URL(self._base + path, encoded=True)
            self._urls[key] = url = url.with_query({"api-version": version}) if version else url
        return url

    def masked(self, text: str) -> str:
        """The text without the secrets."""
        return self.mask.without(text.encode("utf-8", "replace")).decode()


class Group(NamedTuple):
    """All upstreams of a provider, as calls of one environment (and agent) use them."""

    provider: ResolvedProvider
    targets: dict[str, Target]  # by the id of their endpoint in the pool
    pool: Pool

    @property
    def first(self) -> Target:
        return next(iter(self.targets.values()))

    @property
    def is_near(self) -> bool:
        """Whether one of them is in a private network: what it fetches for a caller, it fetches from there."""
        return any(is_inside(target.host) for target in self.targets.values())


class _LocalModel(msgspec.Struct):
    pid: int
    base_url: str


class Providers:
    """The providers of one project."""

    def __init__(
        self,
        project: Project,
        clock: Clock,
        tell: TellUpstream = lambda environment, provider, upstream, is_open: None,
        deployed: Callable[[str], Mapping[str, ResolvedProvider]] = lambda effective: {},
    ) -> None:
        """``tell`` hears of an upstream that is left alone because it keeps failing, and of its return.

        ``deployed`` gives the providers that a version was deployed with, by its effective digest.
        """
        self._deployed = deployed
        self._known: dict[str, Mapping[str, ResolvedProvider]] = {}
        self._project = project
        self._clock = clock
        self._tell = tell
        self._groups: dict[tuple[str, str, str | None, str | None], tuple[float, Group, ProjectConfig]] = {}
        self._pools: dict[tuple[str, str, str], Pool] = {}
        self._keys: dict[str, tuple[float, str | None]] = {}
        self._asking: dict[str, asyncio.Task[str | None]] = {}
        # One of its own: a store that hangs must not take the threads that look up names.
        self._thread = ThreadPoolExecutor(1, "secrets")

    def names(self) -> list[str]:
        return provider_names(self._project)

    def configured(self, environment: str) -> list[str]:
        """Those that the project file itself names for the environment."""
        config = self._project.config
        return sorted({*config.providers, *config.environments[environment].providers})

    def known(self, environment: str, name: str, agent: str | None, version: str | None) -> Group | None:
        """As :meth:`group`, without waiting for anything; None when it has to be looked up."""
        known = self._groups.get((environment, name, agent, version))
        if known is None or self._clock() - known[0] >= _LASTS or known[2] is not self._project.config:
            return None
        return known[1]

    async def group(self, environment: str, name: str, agent: str | None = None, version: str | None = None) -> Group:
        """The provider's upstreams as ``agent``'s runs, or plain callers, use them.

        ``version``: the effective digest that runs; it is served by the providers that it was deployed with.

        Raises InputError for an unknown provider, Unavailable when its secret or its server is not there.
        """
        known = self.known(environment, name, agent, version)
        if known is not None:
            return known
        now = self._clock()
        config = self._project.config
        group = await self._resolve(environment, name, agent, version)
        self._groups[environment, name, agent, version] = (now, group, config)
        return group

    async def target(self, environment: str, name: str, agent: str | None = None) -> Target:
        """The first of them."""
        return (await self.group(environment, name, agent)).first

    async def _resolve(self, environment: str, name: str, agent: str | None, version: str | None) -> Group:
        provider = self._of(environment, name, agent, await self._as_deployed(version) if version else {})
        base = local_base_url(self._project.home, provider) if provider.kind == "local" else provider.base_url
        targets: dict[str, Target] = {}
        places = [(base, provider.api_key), *((further.base_url, further.api_key) for further in provider.upstreams)]
        for number, (url, reference) in enumerate(places, 1):
            id = url if url not in targets else f"{url}#{number}"
            targets[id] = await self._target(provider, url, reference)
        # Agents with a provider entry of their own do not share its state with those that use the project's.
        key = (environment, name, base)
        pool = self._pools.get(key)
        if pool is None:
            tell = partial(self._tell, environment)
            pool = self._pools[key] = Pool(provider, list(targets), tell, workers=workers())
        else:
            pool.configure(provider, list(targets))
        return Group(provider, targets, pool)

    def heard(self, environment: str, name: str, upstream: str, is_open: bool, at: float) -> None:
        """Another worker's breaker of a provider's upstream opened, or closed."""
        for (place, provider, _), pool in list(self._pools.items()):
            if (place, provider) == (environment, name):
                pool.heard(upstream, is_open, at)

    def of(self, environment: str, name: str, agent: str | None = None, version: str | None = None) -> ResolvedProvider:
        """What the provider is to ``agent``'s runs, or to plain callers: as :meth:`group` goes by.

        The store is asked once for each version. Raises InputError for an unknown provider.
        """
        if version is None:
            return self._of(environment, name, agent, {})
        if version not in self._known:
            try:
                self._known[version] = self._deployed(version)
            except (SQLAlchemyError, Unavailable):
                return self._of(environment, name, agent, {})
        return self._of(environment, name, agent, self._known[version])

    def _of(
        self, environment: str, name: str, agent: str | None, deployed: Mapping[str, ResolvedProvider]
    ) -> ResolvedProvider:
        given = deployed.get(name)
        try:
            provider = resolve_provider(self._project, name, environment, agent)
        except InputError:
            if given is None:
                raise
            return given  # the project file has it no more, or a followed branch's alone does
        # The file's where it is the same one: its timeout and the reference of its key may be newer.
        return provider if given is None or given.identity() == provider.identity() else given

    async def _as_deployed(self, version: str) -> Mapping[str, ResolvedProvider]:
        """What the store has of the version; while it does not answer, what it had."""
        try:
            found = await asyncio.to_thread(self._deployed, version)
        except (SQLAlchemyError, Unavailable):
            return self._known.get(version, {})
        self._known[version] = found
        return found

    async def _target(self, provider: ResolvedProvider, base: str, reference: str | None) -> Target:
        headers = {**DEFAULT_HEADERS, "content-type": "application/json"}
        if reference is None or is_at_hand(reference):
            key = resolve_secret(reference, self._project.root)
        else:
            key = await self._key(reference)
        secrets = []
        for name, given in provider.headers:
            waits = is_reference(given) and not is_at_hand(given)
            headers[name] = (await self._key(given) or "") if waits else header_value(given, self._project.root)
            if is_reference(given):
                secrets.append(headers[name])
        if provider.kind == "anthropic":
            headers["anthropic-version"] = ANTHROPIC_VERSION
        if key is not None:
            name, value = _AUTHORIZATION.get(provider.kind, ("authorization", f"Bearer {key}"))
            headers[name] = value or key
        return Target(provider, base, headers, key, secrets)

    async def _key(self, reference: str) -> str | None:
        """A store's secret: what is known while that is fresh, or while it is asked again; else what it answers."""
        known, now = self._keys.get(reference), self._clock()
        if known is not None and now - known[0] < _KEY_LASTS:
            return known[1]
        asking = self._asking.get(reference)
        if asking is None:
            asking = self._asking[reference] = asyncio.get_running_loop().create_task(self._ask(reference))
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody waits for it
        if known is not None and now - known[0] < _GRACE:
            return known[1]
        return await asyncio.shield(asking)  # a caller that leaves does not end it for the others

    async def _ask(self, reference: str) -> str | None:
        loop = asyncio.get_running_loop()
        try:
            key = await loop.run_in_executor(self._thread, resolve_secret, reference, self._project.root)
            self._keys[reference] = (self._clock(), key)
            return key
        finally:
            del self._asking[reference]


def local_base_url(home: Path, provider: ResolvedProvider) -> str:
    """Where the local model server of a provider listens; :class:`Unavailable` while none runs."""
    path = home / "run" / f"local-model-{provider.local_name}.json"
    try:
        base_url = msgspec.json.decode(path.read_bytes(), type=_LocalModel).base_url
    except (FileNotFoundError, msgspec.DecodeError):
        base_url = ""
    if not base_url:
        raise Unavailable(
            f"the local model server of provider {provider.name!r} is not ready",
            remedy="lockgate up starts it; wait a moment",
        )
    return base_url.rstrip("/")
