"""The SQL of the fleet. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select, update

from lockgate.fleet.heartbeats.model import Heartbeat, Reported, Wanted
from lockgate.storage.schema import deployments, hosts, instances, resolved_providers, routes, versions
from lockgate.storage.upsert import insert_into


class Host(NamedTuple):
    """A host of ours, by what it serves."""

    id: str
    effective_digest: str
    pid: int
    heartbeat_at: float


class Named(NamedTuple):
    """A version that an environment names."""

    environment: str
    agent: str
    role: Any  # stable | candidate | previous
    behaviour_digest: str
    effective_digest: str


def put(connection: Connection, environment: str, beat: Heartbeat, now: float) -> Reported:
    """Note what an instance said; returns what is known of it now."""
    said = {
        "version": beat.version,
        "status": beat.status,
        "message": beat.message.replace("\0", ""),
        "interval": beat.interval,
        "last_seen_at": now,
    }
    key = {"environment": environment, "agent": beat.agent, "instance": beat.instance.replace("\0", "")}
    statement = insert_into(connection, instances).values(**key, **said, first_seen_at=now, behind_since=None)
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=said)
    row = connection.execute(statement.returning(*instances.columns)).mappings().one()
    return Reported(**row)


def reported(connection: Connection, environment: str | None = None) -> list[Reported]:
    """Every instance that ever reported, by environment, agent and name."""
    query = select(instances).order_by(instances.c.environment, instances.c.agent, instances.c.instance)
    if environment is not None:
        query = query.where(instances.c.environment == environment)
    return [Reported(**row) for row in connection.execute(query).mappings()]


def set_behind(connection: Connection, known: Reported, since: float | None) -> None:
    """Note since when the instance is behind, or that it is not."""
    connection.execute(
        update(instances)
        .where(
            instances.c.environment == known.environment,
            instances.c.agent == known.agent,
            instances.c.instance == known.instance,
        )
        .values(behind_since=since)
    )


def forget(connection: Connection, environment: str, agent: str, instance: str) -> bool:
    """Remove an instance; False when there is none."""
    gone = connection.execute(
        delete(instances).where(
            instances.c.environment == environment, instances.c.agent == agent, instances.c.instance == instance
        )
    )
    return bool(gone.rowcount)


def wanted(connection: Connection) -> dict[tuple[str, str], Wanted]:
    """What serves each agent, by (environment, agent)."""
    joined = deployments.outerjoin(versions, versions.c.behaviour_digest == deployments.c.stable_behaviour)
    rows = connection.execute(select(deployments, versions.c.file_version).select_from(joined))
    return {
        (row.environment, row.agent): Wanted(
            behaviour_digest=row.stable_behaviour,
            effective_digest=row.stable_effective,
            file_version=row.file_version or 0,
            since=row.updated_at,
        )
        for row in rows
    }


def named(connection: Connection) -> list[Named]:
    """Every version that serves, is on its way out, or is kept for an undo."""
    found = []
    for row in connection.execute(select(routes)):
        found.append(Named(row.environment, row.agent, "stable", row.stable_behaviour, row.stable_effective))
        if row.candidate_effective is not None:
            candidate = (row.candidate_behaviour, row.candidate_effective)
            found.append(Named(row.environment, row.agent, "candidate", *candidate))
    for row in connection.execute(select(deployments).where(deployments.c.previous_effective.is_not(None))):
        previous = (row.previous_behaviour, row.previous_effective)
        found.append(Named(row.environment, row.agent, "previous", *previous))
    return found


def once_deployed(connection: Connection) -> dict[str, tuple[str, str]]:
    """Agent and behaviour digest of every version that was ever deployed, by effective digest."""
    columns = (resolved_providers.c.effective_digest, resolved_providers.c.agent, resolved_providers.c.behaviour_digest)
    return {row[0]: (row[1], row[2]) for row in connection.execute(select(*columns))}


def our_hosts(connection: Connection, since: float) -> list[Host]:
    """Hosts that were heard of at ``since`` or later, oldest first."""
    rows = connection.execute(select(hosts).where(hosts.c.heartbeat_at >= since).order_by(hosts.c.ready_at))
    return [Host(row.id, row.effective_digest, row.pid, row.heartbeat_at) for row in rows]
