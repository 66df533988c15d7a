"""Approvals in the database. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Select, insert, select, update

from lockgate.errors import NotFound
from lockgate.storage.schema import approvals
from lockgate.tools.model import Approval


def add(connection: Connection, approval: Approval) -> None:
    connection.execute(insert(approvals).values(**msgspec.structs.asdict(approval)))


def get(connection: Connection, approval_id: str) -> Approval:
    """Raises :class:`NotFound`."""
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).mappings().first()
    if row is None:
        raise NotFound(f"no approval {approval_id!r}", remedy="lockgate approvals list --all")
    return _approval(row)


def of_step(connection: Connection, run_id: str, seq: int) -> Approval | None:
    query = select(approvals).where(approvals.c.run_id == run_id, approvals.c.seq == seq)
    row = connection.execute(query).mappings().first()
    return None if row is None else _approval(row)


def listed(
    connection: Connection, *, status: str | None, agent: str | None, run_id: str | None = None, limit: int = 100
) -> list[Approval]:
    """Newest first."""
    query: Select[Any] = select(approvals).order_by(approvals.c.requested_at.desc(), approvals.c.id.desc()).limit(limit)
    for column, value in ((approvals.c.status, status), (approvals.c.agent, agent), (approvals.c.run_id, run_id)):
        if value is not None:
            query = query.where(column == value)
    return [_approval(row) for row in connection.execute(query).mappings()]


def overdue(connection: Connection, now: float) -> list[Approval]:
    """Those that wait, or are approved and unused, past their time."""
    query = select(approvals).where(approvals.c.status.in_(("pending", "approved")), approvals.c.expires_at <= now)
    return [_approval(row) for row in connection.execute(query).mappings()]


def change(connection: Connection, before: Approval, after: Approval) -> bool:
    """Move ``before`` to ``after``; False when somebody else changed it in between."""
    fields = ("status", "decided_at", "decided_by", "reason", "executed_at")
    statement = update(approvals).where(approvals.c.id == before.id, approvals.c.status == before.status)
    return connection.execute(statement.values({name: getattr(after, name) for name in fields})).rowcount == 1


def _approval(row: RowMapping) -> Approval:
    # Keys are SQLAlchemy's own kind of string, which msgspec does not take for one.
    return msgspec.convert({str(name): value for name, value in row.items()}, Approval)
