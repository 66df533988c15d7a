"""Where a provider's requests go in one environment, with its secret resolved: looked up once every few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from yarl import URL

from lockgate.clock import Clock
from lockgate.errors import Unavailable
from lockgate.gateway.upstream import DEFAULT_HEADERS
from lockgate.project.model import Project, ResolvedProvider
from lockgate.project.secrets import resolve_secret
from lockgate.project.service import provider_names, resolve_provider

_LASTS = 5.0  # seconds until a changed secret or a restarted local model is noticed


class Target(NamedTuple):
    """A provider as requests need it: full URLs, and the headers that carry its key."""

    provider: ResolvedProvider
    chat: URL
    models: URL
    headers: dict[str, str]


class _LocalModel(msgspec.Struct):
    pid: int
    base_url: str


class Providers:
    """The providers of one project."""

    def __init__(self, project: Project, clock: Clock) -> None:
        self._project = project
        self._clock = clock
        self._targets: dict[tuple[str, str, str | None], tuple[float, Target]] = {}

    def names(self) -> list[str]:
        return provider_names(self._project)

    def target(self, environment: str, name: str, agent: str | None = None) -> Target:
        """The provider as ``agent``'s runs, or plain callers, use it.

        Raises InputError for an unknown provider, Unavailable when its secret or its server is not there.
        """
        now = self._clock()
        known = self._targets.get((environment, name, agent))
        if known is not None and now - known[0] < _LASTS:
            return known[1]
        target = self._resolve(environment, name, agent)
        self._targets[environment, name, agent] = (now, target)
        return target

    def _resolve(self, environment: str, name: str, agent: str | None) -> Target:
        provider = resolve_provider(self._project, name, environment, agent)
        base = local_base_url(self._project.home, name) if provider.kind == "local" else provider.base_url
        headers = {**DEFAULT_HEADERS, "content-type": "application/json"}
        key = resolve_secret(provider.api_key, self._project.root)
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return Target(provider, URL(f"{base}/chat/completions"), URL(f"{base}/models"), headers)


def local_base_url(home: Path, name: str) -> str:
    """Where the local model server of a provider listens; :class:`Unavailable` while none runs."""
    path = home / "run" / f"local-model-{name}.json"
    try:
        base_url = msgspec.json.decode(path.read_bytes(), type=_LocalModel).base_url
    except (FileNotFoundError, msgspec.DecodeError):
        base_url = ""
    if not base_url:
        raise Unavailable(
            f"the local model server of provider {name!r} is not ready", remedy="lockgate up starts it; wait a moment"
        )
    return base_url.rstrip("/")
