"""Limits that people set while everything runs, over those of ``lockgate.yaml``. Pure."""

from __future__ import annotations

from lockgate.project.limits import Allowance, LimitSpec
from lockgate.settings.catalogue import LIMITS
from lockgate.settings.model import Snapshot

_SCOPES = {"tenant": "tenants", "agent": "agents", "model": "models"}


def with_settings(spec: LimitSpec, settings: Snapshot, environment: str) -> LimitSpec:
    """The limits with each value that is set in its place; the rest of an entry stays as the file has it.

    >>> with_settings(LimitSpec(), Snapshot(), "prod") == LimitSpec()
    True
    """
    named: dict[str, dict[str, Allowance]] = {scope: dict(getattr(spec, scope)) for scope in _SCOPES.values()}
    project = spec.project
    changed = False
    for field in LIMITS:
        for one in reversed(settings.all(f"limit.{field}")):  # the narrowest last: it holds
            if one.scope.environment not in ("", environment):
                continue
            changed = True
            kind = next((kind for kind in _SCOPES if getattr(one.scope, kind)), None)
            if kind is None:
                project = (project or Allowance()).model_copy(update={field: one.value})
                continue
            entries, name = named[_SCOPES[kind]], getattr(one.scope, kind)
            before = entries.get(name) or entries.get("*") or Allowance()
            entries[name] = before.model_copy(update={field: one.value})
    return spec.model_copy(update={**named, "project": project}) if changed else spec
