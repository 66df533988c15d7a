"""HTTP routes of settings, below ``/api/v1``. A key sees and changes what holds in its own environment alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Query

from lockgate.settings.catalogue import describe
from lockgate.settings.model import Scope
from lockgate.settings.service import Settings

Name = Annotated[str, Query(max_length=256)]


def settings_routes(settings: Settings, caller: Any) -> APIRouter:
    """The routes, over one service. ``caller`` is the dependency that says who asks (an admin of an environment)."""
    router = APIRouter(tags=["settings"])

    @router.get("/settings")
    def list_settings(name: str | None = None, who: Any = Depends(caller)) -> list[dict[str, Any]]:
        """What is set and holds in the key's environment."""
        return [dict(msgspec.to_builtins(one)) for one in settings.all(name, who.environment)]

    @router.get("/settings/catalogue")
    def catalogue(who: Any = Depends(caller)) -> list[dict[str, Any]]:
        """Which settings there are, and what each takes."""
        return [dict(one) for one in describe()]

    @router.get("/settings/history")
    def history(
        name: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100, who: Any = Depends(caller)
    ) -> list[dict[str, Any]]:
        """Who changed what, when and why: the newest first."""
        return [
            dict(msgspec.to_builtins(one)) for one in settings.history(name, environment=who.environment, limit=limit)
        ]

    @router.put("/settings/{name}")
    def put(
        name: str,
        value: Annotated[Any, Body(embed=True)],
        agent: Annotated[str, Body(embed=True)] = "",
        tenant: Annotated[str, Body(embed=True)] = "",
        model: Annotated[str, Body(embed=True)] = "",
        reason: Annotated[str, Body(embed=True, max_length=2000)] = "",
        who: Any = Depends(caller),
    ) -> dict[str, Any]:
        """Put a value in force in the key's environment, within two seconds in every process."""
        scope = Scope(environment=who.environment, agent=agent, tenant=tenant, model=model)
        done = settings.set(name, value, scope, actor=who.key_id, reason=reason)
        return {**msgspec.to_builtins(done.setting), "notes": done.notes}

    @router.delete("/settings/{name}")
    def delete(
        name: str,
        agent: Name = "",
        tenant: Name = "",
        model: Name = "",
        reason: Annotated[str, Query(max_length=2000)] = "",
        who: Any = Depends(caller),
    ) -> dict[str, Any]:
        """Take a value of the key's environment away: a wider one, or the default, holds again."""
        scope = Scope(environment=who.environment, agent=agent, tenant=tenant, model=model)
        return dict(msgspec.to_builtins(settings.unset(name, scope, actor=who.key_id, reason=reason)))

    return router
