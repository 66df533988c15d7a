"""Alerts in the database. Each function works inside the caller's transaction."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, RowMapping, case, select, update

from lockgate.fleet.model import Alert
from lockgate.storage.schema import alerts
from lockgate.storage.upsert import insert_into

_OPEN = alerts.c.resolved_at.is_(None)
_SEVEREST_FIRST = case({"critical": 0, "warning": 1}, value=alerts.c.severity, else_=2)


def open_or_refresh(connection: Connection, alert: Alert) -> Alert:
    """Open ``alert``, or bring the open one of its key up to date; returns what is stored."""
    statement = insert_into(connection, alerts).values(**msgspec.structs.asdict(alert))
    statement = statement.on_conflict_do_update(
        index_elements=[alerts.c.key],
        index_where=_OPEN,
        set_={name: getattr(statement.excluded, name) for name in ("severity", "message", "last_seen_at")},
    )
    return _alert(connection.execute(statement.returning(*alerts.columns)).mappings().one())


def resolve(connection: Connection, column: str, value: str, now: float) -> list[Alert]:
    """Close the open alert whose ``column`` (key or id) is ``value``; returns what was closed: one or none."""
    statement = update(alerts).where(alerts.c[column] == value, _OPEN).values(resolved_at=now)
    return [_alert(row) for row in connection.execute(statement.returning(*alerts.columns)).mappings()]


def listed(connection: Connection, *, resolved: bool, limit: int) -> list[Alert]:
    """Open ones, the severest first, then the newest; with ``resolved`` also those that are over."""
    query = select(alerts) if resolved else select(alerts).where(_OPEN)
    query = query.order_by(alerts.c.resolved_at.is_not(None), _SEVEREST_FIRST, alerts.c.opened_at.desc(), alerts.c.id)
    return [_alert(row) for row in connection.execute(query.limit(limit)).mappings()]


def _alert(row: RowMapping) -> Alert:
    return Alert(**row)
