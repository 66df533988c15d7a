"""Settings and where they hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

SELECTORS = ("environment", "agent", "tenant", "model")
"""What a setting can be narrowed to."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Where a setting holds. An empty selector means any; a model may be ``PROVIDER/*``."""

    environment: str = ""
    agent: str = ""
    tenant: str = ""
    model: str = ""

    def covers(self, place: Scope) -> bool:
        """Whether a call at ``place`` (whose empty selectors mean *none*) is inside."""
        return (
            self.environment in ("", place.environment)
            and self.agent in ("", place.agent)
            and self.tenant in ("", place.tenant)
            and (self.model in ("", place.model) or _is_of_provider(self.model, place.model))
        )

    @property
    def narrowness(self) -> tuple[int, bool]:
        """The more selectors, the narrower; one model is narrower than a provider's models."""
        return sum(1 for name in SELECTORS if getattr(self, name)), not self.model.endswith("/*")

    def __str__(self) -> str:
        named = ((name, getattr(self, name)) for name in SELECTORS)
        return ", ".join(f"{name} {value!r}" for name, value in named if value) or "everywhere"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting in force. ``at`` is Unix seconds; ``revision`` counts the changes of the whole project."""

    name: str
    scope: Scope
    value: Any
    reason: str
    actor: str
    at: float
    revision: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the history: a value that was set, or (``removed``) taken away."""

    revision: int
    name: str
    scope: Scope
    value: Any
    removed: bool
    reason: str
    actor: str
    at: float


class Snapshot:
    """All settings as one reading of the store had them."""

    def __init__(self, settings: Iterable[Setting] = (), revision: int = 0) -> None:
        self.revision = revision
        self._by_name: dict[str, list[Setting]] = {}
        for setting in sorted(settings, key=lambda one: (one.scope.narrowness, one.revision), reverse=True):
            self._by_name.setdefault(setting.name, []).append(setting)

    def all(self, name: str) -> list[Setting]:
        """Every setting of this name, the narrowest first."""
        return self._by_name.get(name, [])

    def find(
        self, name: str, *, environment: str = "", agent: str = "", tenant: str = "", model: str = ""
    ) -> Setting | None:
        """The setting that holds there: the narrowest one, among equals the newest. None: the default holds."""
        known = self._by_name.get(name)
        if not known:  # asked on every request, and rarely set
            return None
        place = Scope(environment=environment, agent=agent, tenant=tenant, model=model)
        return next((setting for setting in known if setting.scope.covers(place)), None)

    def value(self, name: str, default: Any = None, **place: str) -> Any:
        """The value that holds there, else ``default``."""
        found = self.find(name, **place)
        return default if found is None else found.value


def _is_of_provider(pattern: str, model: str) -> bool:
    return pattern.endswith("/*") and model.startswith(pattern[:-1])
