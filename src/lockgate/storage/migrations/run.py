"""Bring a database to the newest schema. Safe when several processes start at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from lockgate.storage import schema


def upgrade(engine: Engine, kind: Literal["control", "traces"]) -> None:
    """Run what is missing in one transaction; the loser of a race finds nothing left to do."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    with engine.connect() as plain:
        connection = plain.execution_options(lockgate_write=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(7022026)"))
            config.attributes.update(connection=connection, kind=kind)
            command.upgrade(config, schema.HEAD[kind])
