"""The kill switch, and what else people set while the gateway runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from lockgate.errors import Killed
from lockgate.gateway.model import Identity, Route
from lockgate.limits.budgets import as_set
from lockgate.settings.model import SELECTORS, Setting, Snapshot


def check(settings: Snapshot, identity: Identity, *, agent: str | None = None, model: str | None = None) -> None:
    """Raises :class:`Killed` when somebody switched off what is asked for, or who asks.

    ``agent``: the one asked for. A run that calls back counts as its own agent too.
    """
    if not settings.all("kill"):
        return
    asking = identity.run.agent if identity.run is not None else ""
    for name in dict.fromkeys((agent or asking, asking)):
        found = settings.find(
            "kill", environment=identity.environment, tenant=identity.tenant, agent=name, model=model or ""
        )
        if found is not None:
            raise killed(found)


def killed(switch: Setting) -> Killed:
    """The refusal: what is off, since when, by whom, why, and how it is lifted."""
    scope = switch.scope
    flags = {"environment": "--env", "agent": "--agent", "tenant": "--tenant", "model": "--model"}
    lift = " ".join(f"{flags[name]} {getattr(scope, name)}" for name in SELECTORS if getattr(scope, name))
    since = datetime.fromtimestamp(switch.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    what = next(name for name in ("model", "agent", "tenant", "environment") if getattr(scope, name))
    return Killed(
        f"switched off: {scope}, by {switch.actor} at {since}: {switch.reason}",
        what=what,
        remedy=f"lockgate settings unset kill {lift}",
    )


def in_force(routes: Iterable[Route], settings: Snapshot) -> list[Route]:
    """The routes with the daily budgets that are set in place of their files'."""
    return [
        msgspec.structs.replace(route, settings=as_set(route.settings, settings, route.environment, route.agent))
        for route in routes
    ]
