"""Versions and attestations in ``control.db``: what was locked, from where, and which verdicts stand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, insert, select

from lockgate.storage.schema import attestations, deployments, rollouts, versions
from lockgate.storage.upsert import insert_into
from lockgate.versions.renumbered import Deployed


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One behaviour as last locked."""

    behaviour_digest: str
    agent: str
    file_version: int
    created_at: float  # first locked
    git_commit: str | None  # None when its files differed from the commit
    source: str
    settings_digest: str


def save_versions(connection: Connection, rows: Iterable[VersionRow]) -> None:
    """Insert, or bring up to date what is beside the identity; the first time stays."""
    for row in rows:
        values = msgspec.structs.asdict(row)
        statement = insert_into(connection, versions).values(**values)
        latest = {name: statement.excluded[name] for name in ("file_version", "source", "settings_digest")}
        if row.git_commit is not None:
            latest["git_commit"] = statement.excluded.git_commit
        connection.execute(statement.on_conflict_do_update(index_elements=["behaviour_digest"], set_=latest))


def insert_new(connection: Connection, table: Table, values: dict[str, Any]) -> Any:
    """An insert that leaves a row which is there already as it is."""
    return insert_into(connection, table).values(**values).on_conflict_do_nothing()


def version_row(connection: Connection, behaviour_digest: str) -> VersionRow | None:
    """The row of one digest."""
    found = connection.execute(select(versions).where(versions.c.behaviour_digest == behaviour_digest)).mappings()
    row = found.first()
    return None if row is None else VersionRow(**row)


def versions_by_prefix(connection: Connection, prefix: str, agent: str | None = None) -> list[str]:
    """Digests that start with ``prefix`` (``sha256:<hex>``), at most three."""
    query = select(versions.c.behaviour_digest).where(versions.c.behaviour_digest.startswith(prefix, autoescape=True))
    if agent is not None:
        query = query.where(versions.c.agent == agent)
    return list(connection.execute(query.limit(3)).scalars())


def list_versions(connection: Connection, agent: str | None = None) -> Sequence[VersionRow]:
    """Every version ever locked here, the newest first."""
    query = select(versions).order_by(versions.c.created_at.desc(), versions.c.file_version.desc())
    if agent is not None:
        query = query.where(versions.c.agent == agent)
    return [VersionRow(**row) for row in connection.execute(query).mappings()]


def deployed(connection: Connection, environments: Collection[str]) -> dict[str, Deployed]:
    """Every behaviour that was ever brought to one of these environments, by digest, the oldest first."""
    places: dict[str, set[str]] = {}
    for table, column in (
        (deployments, deployments.c.stable_behaviour),
        (deployments, deployments.c.previous_behaviour),
        (rollouts, rollouts.c.baseline_behaviour),
        (rollouts, rollouts.c.candidate_behaviour),
    ):
        query = select(table.c.environment, column).where(table.c.environment.in_(environments)).distinct()
        for environment, digest in connection.execute(query):
            places.setdefault(digest, set()).add(environment)
    return {
        row.behaviour_digest: Deployed(row.agent, row.file_version, tuple(sorted(places[row.behaviour_digest])))
        for row in (reversed(list_versions(connection)) if places else ())
        if row.behaviour_digest in places
    }


def save_attestation(connection: Connection, row: dict[str, Any]) -> None:
    """Keep one signed envelope."""
    connection.execute(insert(attestations).values(**row))


def envelopes(connection: Connection, effective_digest: str) -> list[tuple[str, dict[str, Any]]]:
    """``(id, envelope)`` of every attestation on this digest, the newest first."""
    query = (
        select(attestations.c.id, attestations.c.envelope)
        .where(attestations.c.effective_digest == effective_digest)
        .order_by(attestations.c.created_at.desc(), attestations.c.id.desc())
    )
    return [(row.id, row.envelope) for row in connection.execute(query)]


def envelopes_of(connection: Connection, behaviour_digest: str) -> list[dict[str, Any]]:
    """Every attestation on a behaviour, whatever the environment, the newest first."""
    query = (
        select(attestations.c.envelope)
        .where(attestations.c.behaviour_digest == behaviour_digest)
        .order_by(attestations.c.created_at.desc(), attestations.c.id.desc())
    )
    return list(connection.execute(query).scalars())


def has_attestation(connection: Connection, name: str) -> bool:
    """Whether an attestation of this id is kept."""
    return connection.execute(select(attestations.c.id).where(attestations.c.id == name)).first() is not None
