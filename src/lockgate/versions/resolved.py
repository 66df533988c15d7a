"""The providers that a deployed version was resolved with, kept by its effective digest.

What is served is what was gated: a version keeps its providers, though the project file here says others by now, or
the file that said them is a followed branch's. Secrets are kept as the references they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection, select

from lockgate.project.model import ResolvedProvider
from lockgate.storage.schema import resolved_providers
from lockgate.storage.upsert import insert_into
from lockgate.versions.digest import effective_digest
from lockgate.versions.model import VersionRef


def record(connection: Connection, version: VersionRef, providers: Mapping[str, ResolvedProvider], now: float) -> None:
    """Keep what the version's environment resolves; what is not part of the digest (a key's reference) is renewed."""
    values = {
        "behaviour_digest": version.behaviour_digest,
        "agent": version.agent,
        "providers": {name: msgspec.to_builtins(one) for name, one in providers.items()},
        "recorded_at": now,
    }
    statement = insert_into(connection, resolved_providers).values(effective_digest=version.effective_digest, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[resolved_providers.c.effective_digest], set_=values)
    )


def recorded(connection: Connection, effective: str) -> dict[str, ResolvedProvider]:
    """The providers of a version that was deployed; empty when they are not known, or do not give this digest."""
    row = connection.execute(
        select(resolved_providers).where(resolved_providers.c.effective_digest == effective)
    ).first()
    if row is None:
        return {}
    found = msgspec.convert(row.providers, dict[str, ResolvedProvider])
    identities = {name: one.identity() for name, one in found.items()}
    return found if effective_digest(row.behaviour_digest, identities, {}) == effective else {}
