"""The SQL of keys and routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from lockgate.gateway.model import ApiKey, Route
from lockgate.storage.schema import api_keys, deployments, routes
from lockgate.versions.model import AgentSettings, VersionRef


def insert_key(connection: Connection, key: ApiKey, key_hash: str) -> None:
    connection.execute(insert(api_keys).values(hash=key_hash, revoked_at=None, **_key_columns(key)))


def keys(connection: Connection) -> list[ApiKey]:
    """Every key, oldest first, revoked ones included."""
    return [_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created_at))]


def keys_by_hash(connection: Connection, hashes: Sequence[str]) -> dict[str, ApiKey]:
    """Those of ``hashes`` that exist."""
    rows = connection.execute(select(api_keys).where(api_keys.c.hash.in_(hashes)))
    return {row.hash: _key(row) for row in rows}


def revoke_key(connection: Connection, key_id: str, now: float) -> int:
    """Mark it revoked; the number of rows that changed (0: unknown, or revoked before)."""
    changed = connection.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    return changed.rowcount


def all_routes(connection: Connection) -> list[Route]:
    """Every route as the store has it, leases not applied."""
    return [_route(row) for row in connection.execute(select(routes))]


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


def _key_columns(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "environment": key.environment,
        "roles": list(key.roles),
        "agents": None if key.agents is None else list(key.agents),
        "models": None if key.models is None else list(key.models),
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
