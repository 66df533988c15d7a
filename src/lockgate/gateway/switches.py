"""What people set while the gateway runs, as it bears on one call. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lockgate.gateway.model import Identity, Route
from lockgate.limits.budgets import as_set
from lockgate.settings import switches
from lockgate.settings.model import Snapshot


def check(settings: Snapshot, identity: Identity, *, agent: str | None = None, model: str | None = None) -> None:
    """Raises :class:`~lockgate.errors.Killed` when somebody switched off what is asked for, or who asks.

    ``agent``: the one asked for. A run that calls back counts as its own agent too.
    """
    if not settings.all("kill"):
        return
    asking = None if identity.run is None else identity.run.agent
    switches.check(
        settings,
        environment=identity.environment,
        tenant=identity.tenant,
        agents=[name for name in (agent, asking) if name is not None],
        model=model or "",
    )


def in_force(routes: Iterable[Route], settings: Snapshot) -> list[Route]:
    """The routes with the daily budgets that are set in place of their files'."""
    return [
        msgspec.structs.replace(route, settings=as_set(route.settings, settings, route.environment, route.agent))
        for route in routes
    ]
