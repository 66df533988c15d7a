"""Inserts that know what to do about a row that is there already: ``ON CONFLICT``, which each dialect spells itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table


def insert_into(connection: Connection, table: Table) -> Any:
    """An insert of the connection's dialect, with ``on_conflict_do_update`` and ``on_conflict_do_nothing``.

    The other dialect is not imported: PostgreSQL's alone takes as long as reading a project.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql

        return insert_postgresql(table)
    from sqlalchemy.dialects.sqlite import insert

    return insert(table)
