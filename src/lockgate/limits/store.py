"""The ledger's SQL: settled totals by account, window and unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from lockgate.limits.model import Balance, Unit
from lockgate.storage.schema import deployments, ledger, runs
from lockgate.versions.model import AgentSettings

_MANY = 500  # values in one statement

_KEY = (ledger.c.account, ledger.c.window, ledger.c.unit)


def upsert(connection: Connection, balances: Sequence[Balance], *, at: float) -> None:
    """Write settled totals. A total never goes down: a late writer cannot undo a newer one."""
    if not balances:
        return
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(ledger)
    new = statement.excluded
    greater = case((new.settled > ledger.c.settled, new.settled), else_=ledger.c.settled)
    statement = statement.on_conflict_do_update(
        index_elements=_KEY, set_={"settled": greater, "updated_at": new.updated_at}
    )
    rows = [
        {"account": row.account, "window": row.window, "unit": row.unit, "settled": row.settled, "updated_at": at}
        for row in balances
    ]
    connection.execute(statement, rows)


def in_windows(connection: Connection, first_day: str) -> list[Balance]:
    """The accounts other than runs' whose window has not ended by ``first_day``, or never ends."""
    wanted = or_(ledger.c.window == "", ledger.c.window >= first_day)
    return _balances(connection, wanted & ~ledger.c.account.startswith("run:", autoescape=True))


def named(connection: Connection, account: str) -> list[Balance]:
    """Everything kept under one account's name."""
    return _balances(connection, ledger.c.account == account)


def running(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Those of the runs that are under way."""
    found: list[str] = []
    for start in range(0, len(run_ids), _MANY):
        some = runs.c.id.in_(run_ids[start : start + _MANY])
        found += connection.execute(select(runs.c.id).where(some, runs.c.status == "running")).scalars()
    return found


def deployed(connection: Connection) -> list[tuple[str, str, AgentSettings]]:
    """(environment, agent, settings) of what is deployed."""
    columns = (deployments.c.environment, deployments.c.agent, deployments.c.settings)
    return [
        (environment, agent, msgspec.convert(settings, AgentSettings))
        for environment, agent, settings in connection.execute(select(*columns).order_by(*columns[:2]))
    ]


def forget_runs(connection: Connection, before: float) -> int:
    """Delete the totals of runs not written since ``before``."""
    old = ledger.c.account.startswith("run:", autoescape=True) & (ledger.c.updated_at < before)
    return connection.execute(delete(ledger).where(old)).rowcount


def _balances(connection: Connection, condition: Any) -> list[Balance]:
    rows = connection.execute(select(ledger).where(condition).order_by(*_KEY))
    return [
        Balance(
            account=row.account,
            window=row.window,
            cap=None,
            settled=row.settled,
            held=0,
            unit=cast(Unit, row.unit),
            touched_at=row.updated_at,
        )
        for row in rows
    ]
