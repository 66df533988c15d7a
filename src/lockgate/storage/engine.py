"""Opens a database and hands out transactions: one class for SQLite and PostgreSQL.

SQLite runs in WAL mode with one writer at a time: ``write()`` takes the write lock when it begins
(``BEGIN IMMEDIATE``), so that a transaction never fails half-way for want of it, and it is durable when
the block ends (``synchronous=FULL``). Traces may lose the last moment on a power cut (``NORMAL``), never on a kill.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import ArgumentError

from lockgate.errors import InputError, LockgateError, MissingExtra, Unavailable
from lockgate.storage import schema
from lockgate.storage.private import keep_private

BUSY_SECONDS = 30.0

_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")

Kind = Literal["control", "traces"]
_METADATA: dict[Kind, MetaData] = {"control": schema.control, "traces": schema.traces}


class Database:
    """One database. Safe to share between threads, not between processes (open it in each)."""

    def __init__(self, engine: Engine, kind: Kind) -> None:
        self.engine = engine
        self.kind = kind

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: a consistent snapshot, never waiting for a writer."""
        with self.engine.connect() as connection:
            if self.dialect == "postgresql":  # by itself it has a snapshot for each statement
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: commits when the block ends, rolls back when it raises."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(lockgate_write=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str | Path, kind: Kind) -> Database:
    """Open ``url`` (a file path, or a ``postgresql://`` URL) and bring its schema up to date.

    A file, and what SQLite puts beside it, is readable by its owner only. Raises :class:`InputError` for a URL of
    another kind, :class:`Unavailable` when the database does not answer, and
    :class:`~lockgate.errors.Conflict` when its schema is one that cannot be brought up to date.
    """
    location = str(url)
    if "://" not in location:
        location = f"sqlite:///{location}"
    parsed = _parse(location, kind)
    if parsed.drivername == "postgresql":
        try:
            import psycopg  # noqa: F401
        except ImportError as missing:
            raise MissingExtra("PostgreSQL", "postgres") from missing
        parsed = parsed.set(drivername="postgresql+psycopg")
    options: dict[str, Any] = {}
    if parsed.drivername.startswith("sqlite"):
        options["connect_args"] = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        if parsed.database and parsed.database != ":memory:":
            try:
                keep_private(Path(parsed.database))
            except OSError as failure:
                raise Unavailable(
                    f"the {kind} database {parsed.database!r} cannot be made: {failure.strerror}",
                    remedy="check the path, and that the disk is writable",
                ) from failure
    engine = create_engine(
        parsed,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
        **options,
    )
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, "FULL" if kind == "control" else "NORMAL")
        if kind == "traces":
            _name_what_is_damaged(engine)
    database = Database(engine, kind)
    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _parse(location: str, kind: Kind) -> URL:
    try:
        parsed = make_url(location)
        if parsed.drivername in _DRIVERS:
            return parsed
    except (ArgumentError, ValueError):
        pass
    shown = re.sub(r"(://[^:/?]*:)[^/]*(?=@)|(password=)[^&]*", lambda found: f"{found[1] or found[2]}***", location)
    raise InputError(
        f"the {kind} database is at {shown!r}, which is of no kind that Lockgate keeps its state in",
        remedy=f"set LOCKGATE_{kind.upper()}_URL to postgresql://USER:PASSWORD@HOST/NAME or sqlite:////PATH; without "
        f"it, it is the file {kind}.db beside the other state",
    )


def _prepare_sqlite(engine: Engine, synchronous: str) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, _record: object) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("lockgate_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _name_what_is_damaged(engine: Engine) -> None:
    @event.listens_for(engine, "handle_error")
    def _on_error(context: ExceptionContext) -> None:
        failure = context.original_exception
        if type(failure) is sqlite3.DatabaseError:  # "malformed", "not a database"; what may pass is of other types
            path = engine.url.database
            raise Unavailable(
                f"the traces database {path!r} is damaged: {failure}",
                remedy=f"stop Lockgate, move {path} away, with its -wal and -shm, and start again: nothing that serves "
                "needs older traces",
            ) from failure


def _migrate(database: Database) -> None:
    """Run the migrations that are missing; alembic is only imported when there are some, and a file is not new."""
    found = _revision(database)
    if found == schema.HEAD[database.kind]:
        return
    if found is None and database.engine.dialect.name == "sqlite":
        _create(database)
        return
    from lockgate.storage.migrations.run import upgrade

    upgrade(database.engine, database.kind)


def _create(database: Database) -> None:
    """A new file gets the newest schema at once, and says so where alembic looks."""
    table, head = schema.VERSION_TABLE[database.kind], schema.HEAD[database.kind]
    tables = {"control": schema.control, "traces": schema.traces}[database.kind]
    with database.write() as connection:
        if database.engine.dialect.has_table(connection, table):
            return  # somebody else was first
        tables.create_all(connection)
        key = f"constraint {table}_pkc primary key (version_num)"
        connection.execute(text(f"create table {table} (version_num varchar(32) not null, {key})"))
        connection.execute(text(f"insert into {table} values (:head)"), {"head": head})  # noqa: S608


def _revision(database: Database) -> str | None:
    table = schema.VERSION_TABLE[database.kind]
    try:
        with database.read() as connection:
            present = database.engine.dialect.has_table(connection, table)
            if not present:
                return None
            row = connection.execute(text(f"select version_num from {table}")).first()  # noqa: S608
            return None if row is None else str(row[0])
    except LockgateError:
        raise
    except Exception as failure:  # whatever the driver raises: the database cannot be opened
        raise Unavailable(
            f"the {database.kind} database {database.engine.url.render_as_string()!r} cannot be opened: {failure}",
            remedy="check the path or URL, and that the disk is writable and the server is up",
        ) from failure


__all__ = ["Database", "Kind", "open_database", "select"]
