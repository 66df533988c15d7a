"""The SQL of settings: an append-only list of changes, of which the newest for each name and scope holds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from lockgate.settings.model import SELECTORS, Change, Scope, Setting
from lockgate.storage.schema import api_keys, deployments, setting_changes

_COLUMNS = [setting_changes.c[name] for name in SELECTORS]


def add(
    connection: Connection,
    name: str,
    scope: Scope,
    value: Any,
    *,
    removed: bool,
    reason: str,
    actor: str,
    at: float,
) -> int:
    """Append a change; returns its revision."""
    row = {"name": name, "value": value, "removed": removed, "reason": reason, "actor": actor, "at": at}
    row |= {selector: getattr(scope, selector) for selector in SELECTORS}
    done = connection.execute(insert(setting_changes).values(**row).returning(setting_changes.c.revision))
    return int(done.scalar_one())


def revision(connection: Connection) -> int:
    """The newest change's number; 0 when there is none."""
    return int(connection.execute(select(func.coalesce(func.max(setting_changes.c.revision), 0))).scalar_one())


def current(connection: Connection) -> list[Setting]:
    """What holds now, by name."""
    table = setting_changes
    newest = select(func.max(table.c.revision)).group_by(table.c.name, *_COLUMNS)
    rows = connection.execute(
        select(table).where(table.c.revision.in_(newest), table.c.removed.is_(False)).order_by(table.c.name, *_COLUMNS)
    )
    return [
        Setting(
            name=row.name,
            scope=_scope(row),
            value=row.value,
            reason=row.reason,
            actor=row.actor,
            at=row.at,
            revision=row.revision,
        )
        for row in rows
    ]


def history(connection: Connection, name: str | None, environment: str | None, limit: int) -> list[Change]:
    """The newest changes first; with ``environment`` those that hold there, or everywhere."""
    table = setting_changes
    query = select(table).order_by(table.c.revision.desc()).limit(limit)
    if name is not None:
        query = query.where(table.c.name == name)
    if environment is not None:
        query = query.where(table.c.environment.in_(("", environment)))
    return [
        Change(
            revision=row.revision,
            name=row.name,
            scope=_scope(row),
            value=row.value,
            removed=row.removed,
            reason=row.reason,
            actor=row.actor,
            at=row.at,
        )
        for row in connection.execute(query)
    ]


def is_deployed(connection: Connection, agent: str, environment: str) -> bool:
    """Whether an agent of this name serves in the environment, or (empty) in any."""
    query = select(deployments.c.agent).where(deployments.c.agent == agent)
    if environment:
        query = query.where(deployments.c.environment == environment)
    return connection.execute(query.limit(1)).first() is not None


def has_key(connection: Connection, tenant: str) -> bool:
    """Whether a key was ever made for this tenant."""
    return connection.execute(select(api_keys.c.id).where(api_keys.c.tenant == tenant).limit(1)).first() is not None


def _scope(row: Row[Any]) -> Scope:
    return Scope(**{selector: getattr(row, selector) for selector in SELECTORS})
