"""The git commits each version was locked from: beside the identity, never inside. One behaviour may have many."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from lockgate.storage.schema import version_commits, versions
from lockgate.versions.store import VersionRow, insert_new


def record_commit(connection: Connection, digests: Iterable[str], commit: str, now: float) -> None:
    """Remember that these versions were locked from ``commit``; the first time stays."""
    for digest in digests:
        row = {"behaviour_digest": digest, "git_commit": commit, "seen_at": now}
        connection.execute(insert_new(connection, version_commits, row))


def versions_at(connection: Connection, commit: str) -> list[VersionRow]:
    """Every version locked from a commit (or one whose SHA starts so), the newest first."""
    query = (
        select(versions, version_commits.c.git_commit.label("at"))
        .join(version_commits, version_commits.c.behaviour_digest == versions.c.behaviour_digest)
        .where(version_commits.c.git_commit.startswith(commit, autoescape=True))
        .order_by(version_commits.c.seen_at.desc(), versions.c.agent)
    )
    found = []
    for row in connection.execute(query).mappings():
        values = dict(row)
        values["git_commit"] = values.pop("at")
        found.append(VersionRow(**values))
    return found
