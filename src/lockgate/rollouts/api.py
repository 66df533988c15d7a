"""HTTP routes of deployments and rollouts, below ``/api/v1``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Depends, Path, Query, Request

from lockgate.errors import NotFound, Refused
from lockgate.gateway.model import Identity
from lockgate.project.model import NAME
from lockgate.rollouts import view
from lockgate.rollouts.gitops import GitOps
from lockgate.rollouts.model import Rollout
from lockgate.rollouts.service import Rollouts

Reason = Annotated[str, Body(embed=True, description="Why; it is kept in the audit log.", max_length=2000)]
_VERSION = r"^(\d{1,9}|(sha256:)?[0-9a-f]{12,64})?$"


def rollout_routes(rollouts: Rollouts, caller: Any) -> APIRouter:
    """The routes, over one service. ``caller`` is the dependency that says who asks (an admin of an environment)."""
    router = APIRouter(tags=["rollouts"])

    @router.get("/agents")
    def list_agents(who: Identity = Depends(caller)) -> list[dict[str, Any]]:
        """What serves in the key's environment."""
        return [view.deployment(one) for one in rollouts.deployments(who.environment)]

    @router.post("/agents/{agent}/deploy")
    def deploy(
        agent: Annotated[str, Path(pattern=NAME)],
        version: Annotated[str, Body(embed=True, description="A file version, or a digest.", pattern=_VERSION)] = "",
        direct: Annotated[bool, Body(embed=True)] = False,
        override_reason: Annotated[str | None, Body(embed=True, max_length=2000)] = None,
        who: Identity = Depends(caller),
    ) -> dict[str, Any]:
        """Bring a version to the key's environment."""
        if agent.endswith((".yaml", ".yml")):
            raise NotFound(f"no agent {agent!r}", remedy="name an agent, not a file")
        done = rollouts.deploy(
            f"{agent}@{version}" if version else agent,
            who.environment,
            direct=direct,
            override_reason=override_reason,
            by=who.key_id,
        )
        return {
            "outcome": done.outcome,
            "message": done.message,
            "version": msgspec.to_builtins(done.version),
            "rollout": view.brief(done.rollout) if done.rollout else None,
        }

    @router.post("/agents/{agent}/undo")
    def undo(agent: str, reason: Reason, who: Identity = Depends(caller)) -> dict[str, Any]:
        """The previous version serves again."""
        return view.deployment(rollouts.undo(agent, who.environment, reason=reason, by=who.key_id))

    @router.get("/rollouts")
    def list_rollouts(
        agent: str | None = None,
        live: bool = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        who: Identity = Depends(caller),
    ) -> list[dict[str, Any]]:
        """Newest first."""
        found = rollouts.list(environment=who.environment, agent=agent, live=live, limit=limit)
        return [view.brief(one) for one in found]

    @router.get("/rollouts/{rollout}")
    def status(rollout: str, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Where a rollout stands, with its evidence and history."""
        return view.describe(rollouts.status(_mine(rollout, who).id))

    @router.post("/rollouts/{rollout}/promote")
    def promote(rollout: str, reason: Reason, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Make the candidate stable now."""
        return view.brief(rollouts.promote(_mine(rollout, who).id, reason=reason, by=who.key_id))

    @router.post("/rollouts/{rollout}/abort")
    def abort(rollout: str, reason: Reason, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Back to stable now."""
        return view.brief(rollouts.abort(_mine(rollout, who).id, reason=reason, by=who.key_id))

    @router.post("/rollouts/{rollout}/pause")
    def pause(rollout: str, reason: Reason, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Stay in this phase."""
        return view.brief(rollouts.pause(_mine(rollout, who).id, reason=reason, by=who.key_id))

    @router.post("/rollouts/{rollout}/resume")
    def resume(rollout: str, reason: Reason, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Go on after a pause."""
        return view.brief(rollouts.resume(_mine(rollout, who).id, reason=reason, by=who.key_id))

    @router.post("/rollouts/{rollout}/retry")
    def retry(rollout: str, who: Identity = Depends(caller)) -> dict[str, Any]:
        """Start an ended rollout again, on the same evidence."""
        return view.brief(rollouts.retry(_mine(rollout, who).id, by=who.key_id))

    def _mine(ref: str, who: Identity) -> Rollout:
        found = rollouts.get(ref, who.environment)
        if found.environment != who.environment:
            raise Refused(
                f"rollout {found.id} is in {found.environment!r}, this key is for {who.environment!r}",
                remedy="use a key of that environment",
            )
        return found

    return router


def gitops_routes(gitops: GitOps, caller: Any) -> APIRouter:
    """The branch that is followed. The webhook needs no key: its body is signed."""
    router = APIRouter(tags=["gitops"])

    @router.get("/gitops")
    def status(who: Identity = Depends(caller)) -> dict[str, Any]:
        """The branch, and each agent of the key's environment."""
        states = [one for one in gitops.states() if one.environment == who.environment]
        return {"source": msgspec.to_builtins(gitops.source()), "agents": msgspec.to_builtins(states)}

    @router.post("/gitops/webhook", status_code=202)
    async def webhook(request: Request) -> dict[str, str]:
        """A push was made: look soon. Signed as GitHub and Gitea do it (``X-Hub-Signature-256``)."""
        body = await request.body()
        await asyncio.to_thread(gitops.wake, body, request.headers.get("x-hub-signature-256"))
        return {"status": "woken"}

    return router
