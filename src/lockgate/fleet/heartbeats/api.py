"""HTTP routes of heartbeats and the fleet, below ``/api``."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from lockgate.errors import InputError
from lockgate.fleet.heartbeats.model import FIELD_INTERVAL, Event, Heartbeat
from lockgate.fleet.heartbeats.service import Fleet
from lockgate.gateway.access import check_agent
from lockgate.gateway.model import Identity
from lockgate.versions.registry.reference import SCHEME, parse

Shape = TypeVar("Shape", Heartbeat, Event)
EVENT = "agent.heartbeat"


def fleet_routes(fleet: Fleet, caller: Any, member: Any) -> APIRouter:
    """The routes, over one service. ``caller`` is the dependency for admins, ``member`` that for what reports."""
    router = APIRouter(tags=["fleet"])

    async def take(request: Request, who: Identity, beat: Heartbeat) -> dict[str, Any]:
        check_agent(who, beat.agent)
        answer = await run_in_threadpool(fleet.beat, who.environment, beat, pull=_pull(request))
        return dict(msgspec.to_builtins(answer))

    @router.post("/v1/heartbeats")
    async def heartbeat(request: Request, who: Identity = Depends(member)) -> dict[str, Any]:
        """An instance tells that it lives and what it runs, and is told what it should run and where to pull it."""
        return await take(request, who, _read(await request.body(), Heartbeat))

    @router.post("/events/ingest")
    async def ingest(request: Request, who: Identity = Depends(member)) -> dict[str, Any]:
        """The same as an event, ``{"type": "agent.heartbeat", "statusMessage": …}``. Who it is, the key may say."""
        event = _read(await request.body(), Event)
        if event.type != EVENT:
            raise InputError(f"an event of type {event.type!r} is not taken", remedy=f"send {EVENT!r}")
        agent = event.agent or (who.agents[0] if who.agents and len(who.agents) == 1 else None)
        if agent is None:
            raise InputError(
                "the event does not say which agent it is of, and neither does the key",
                remedy='send "agent", or make a key for one: lockgate keys create --agent NAME --role agent',
            )
        beat = Heartbeat(
            agent=agent,
            instance=event.instance or who.key_id,
            version=event.version,
            message=event.status_message,
            interval=FIELD_INTERVAL,
        )
        return await take(request, who, beat)

    @router.get("/v1/fleet")
    def list_fleet(who: Identity = Depends(caller)) -> list[dict[str, Any]]:
        """Every instance of the key's environment: what it runs, what it should run, and its lag."""
        return [dict(msgspec.to_builtins(one)) for one in fleet.list(who.environment)]

    @router.delete("/v1/fleet/{agent}/{instance}", status_code=204)
    def forget(agent: str, instance: str, who: Identity = Depends(caller)) -> None:
        """Expect an instance no more."""
        fleet.forget(who.environment, agent, instance)

    return router


def _read(body: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.DecodeError as wrong:
        raise InputError(
            f"the body is wrong: {wrong}", remedy='send {"agent": …, "instance": …, "version": …}'
        ) from wrong


def _pull(request: Request) -> str | None:
    """Where this caller reaches us: versions are pulled from there too."""
    host = request.headers.get("host", "")
    try:
        return f"{SCHEME}{parse(f'{SCHEME}{host}/any').host}/"
    except InputError:
        return None
