"""Bring a database to the newest schema. Safe when several processes start at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, MetaData, inspect, text

from lockgate.errors import Conflict
from lockgate.storage import schema


def upgrade(engine: Engine, kind: Literal["control", "traces"]) -> None:
    """Run what is missing in one transaction; the loser of a race finds nothing left to do.

    Raises :class:`Conflict`, and changes nothing, when the database was made by a newer Lockgate, or by one so old
    that no migration leads from it.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    with engine.connect() as plain:
        connection = plain.execution_options(lockgate_write=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(7022026)"))
            config.attributes.update(connection=connection, kind=kind)
            try:
                command.upgrade(config, schema.HEAD[kind])
            except CommandError as unknown:
                raise Conflict(
                    f"the {kind} database {_shown(engine)} has a schema that this Lockgate does not know: {unknown}",
                    remedy="a newer Lockgate made it: use that one here too, or another database",
                ) from unknown
            missing = _missing(connection, schema.control if kind == "control" else schema.traces)
            if missing:
                raise Conflict(
                    f"the {kind} database {_shown(engine)} is of an earlier schema, without {', '.join(missing)}; no "
                    "migration leads from it to this one",
                    remedy="keep it for the Lockgate that made it, and name another: move the file away, or set "
                    f"LOCKGATE_{kind.upper()}_URL",
                )


def _missing(connection: Connection, tables: MetaData) -> list[str]:
    """What the schema has and the database has not: ``table`` or ``table.column``."""
    found = inspect(connection)
    there = set(found.get_table_names())
    missing: list[str] = []
    for table in tables.sorted_tables:
        if table.name not in there:
            missing.append(table.name)
            continue
        columns = {column["name"] for column in found.get_columns(table.name)}
        missing += [str(column) for column in table.columns if column.name not in columns]
    return missing


def _shown(engine: Engine) -> str:
    return repr(engine.url.render_as_string())
