"""The SQL of keys and routes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from lockgate.gateway.model import ApiKey, Route
from lockgate.storage.engine import Database
from lockgate.storage.schema import api_keys, deployments, hosts, routes, runs
from lockgate.versions.model import AgentSettings, VersionRef


def insert_key(connection: Connection, key: ApiKey, key_hash: str) -> None:
    connection.execute(insert(api_keys).values(hash=key_hash, revoked_at=None, **_key_columns(key)))


def keys(connection: Connection) -> list[ApiKey]:
    """Every key, oldest first, revoked ones included."""
    return [_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created_at))]


def keys_by_hash(connection: Connection, hashes: Sequence[str]) -> dict[str, ApiKey]:
    """Those of ``hashes`` that exist."""
    asked = set(hashes)
    found: dict[str, ApiKey] = {}
    either = or_(api_keys.c.hash.in_(hashes), api_keys.c.previous_hash.in_(hashes))
    for row in connection.execute(select(api_keys).where(either)):
        key = _key(row)
        if row.hash in asked:
            found[row.hash] = key
        if row.previous_hash in asked and row.previous_until is not None:  # good until the rotation's grace is over
            ends = [end for end in (key.expires_at, row.previous_until) if end is not None]
            found[row.previous_hash] = msgspec.structs.replace(key, expires_at=min(ends))
    return found


def rotate_key(connection: Connection, key_id: str, key_hash: str, now: float, previous_until: float) -> int:
    """Another secret for a key; the one it had stays good until ``previous_until``. The number of rows changed."""
    changed = connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(hash=key_hash, previous_hash=api_keys.c.hash, previous_until=previous_until)
    )
    return changed.rowcount


def revoke_key(connection: Connection, key_id: str, now: float) -> int:
    """Mark it revoked; the number of rows that changed (0: unknown, or revoked before)."""
    changed = connection.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    return changed.rowcount


def all_routes(connection: Connection) -> list[Route]:
    """Every route as the store has it, leases not applied."""
    return [_route(row) for row in connection.execute(select(routes))]


_REVISION = select(func.sum(routes.c.revision))


def watch(control: Database) -> Callable[[], bool]:
    """A question for many times a second: whether a route was written since it was last asked.

    Each write of a route counts its revision up and none is ever deleted, so their sum says it: one small query. An
    answer of the store that does not come is no change.
    """
    known: int | None = None

    def changed() -> bool:
        nonlocal known
        try:
            with control.read() as connection:
                now = int(connection.execute(_REVISION).scalar() or 0)
        except SQLAlchemyError:
            return False
        before, known = known, now
        return before is not None and before != now

    return changed


def warm_versions(connection: Connection, now: float) -> list[tuple[str, VersionRef]]:
    """(environment, version) of each previous version that is kept warm for an undo."""
    rows = connection.execute(
        select(deployments).where(deployments.c.previous_effective.is_not(None), deployments.c.warm_until > now)
    )
    return [
        (
            row.environment,
            VersionRef(
                agent=row.agent, behaviour_digest=row.previous_behaviour, effective_digest=row.previous_effective
            ),
        )
        for row in rows
    ]


def hosts_with_runs(connection: Connection, folder: str) -> list[int]:
    """The processes of the hosts with sockets in this folder that have runs under way."""
    busy = select(runs.c.host).where(runs.c.status == "running")
    wanted = hosts.c.address.startswith(folder, autoescape=True) & hosts.c.id.in_(busy)
    return list(connection.execute(select(hosts.c.pid).where(wanted)).scalars())


def _key_columns(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "environment": key.environment,
        "roles": list(key.roles),
        "agents": None if key.agents is None else list(key.agents),
        "models": None if key.models is None else list(key.models),
        "tools": None if key.tools is None else list(key.tools),
        "limits": dict(key.limits),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
    }


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        environment=row.environment,
        roles=tuple(row.roles),
        agents=None if row.agents is None else tuple(row.agents),
        models=None if row.models is None else tuple(row.models),
        tools=None if row.tools is None else tuple(row.tools),
        limits=tuple(sorted(row.limits.items())),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _route(row: Row[Any]) -> Route:
    candidate = None
    if row.candidate_effective is not None:
        candidate = VersionRef(
            agent=row.agent, behaviour_digest=row.candidate_behaviour, effective_digest=row.candidate_effective
        )
    return Route(
        environment=row.environment,
        agent=row.agent,
        stable=VersionRef(
            agent=row.agent, behaviour_digest=row.stable_behaviour, effective_digest=row.stable_effective
        ),
        settings=msgspec.convert(row.settings, AgentSettings),
        candidate=candidate,
        rollout_id=row.rollout_id,
        weight=row.weight,
        mirror=row.mirror,
        lease_until=row.lease_until,
        revision=row.revision,
    )
