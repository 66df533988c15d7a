"""The audit log: each entry carries the hash of the one before, so a change or a gap shows offline."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785
from sqlalchemy import Connection, insert, select, text

from lockgate.errors import Corrupt
from lockgate.storage.schema import audit

GENESIS = "0" * 64


def record(
    connection: Connection, *, at: float, actor: str, action: str, subject: str, details: dict[str, Any] | None = None
) -> None:
    """Append one entry inside the caller's transaction, so that the act and its record stand or fall together."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("lock table audit in exclusive mode"))
    last = connection.execute(select(audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).scalar()
    entry = {"at": at, "actor": actor, "action": action, "subject": subject, "details": details or {}}
    previous = last or GENESIS
    connection.execute(insert(audit).values(**entry, previous_hash=previous, hash=_hash(previous, entry)))


def verify(connection: Connection) -> int:
    """Re-hash the whole chain; returns its length. Raises :class:`Corrupt` at the first entry that does not fit."""
    previous, count = GENESIS, 0
    for row in connection.execute(select(audit).order_by(audit.c.seq)).mappings():
        entry = {name: row[name] for name in ("at", "actor", "action", "subject", "details")}
        if row["previous_hash"] != previous or row["hash"] != _hash(previous, entry):
            raise Corrupt(f"the audit log was changed at entry {row['seq']} ({row['action']} {row['subject']!r})")
        previous, count = row["hash"], count + 1
    return count


def _hash(previous: str, entry: dict[str, Any]) -> str:
    return hashlib.sha256(previous.encode() + rfc8785.dumps(entry)).hexdigest()
