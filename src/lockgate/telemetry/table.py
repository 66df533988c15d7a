"""Writes spans into a traces database, and waits for one that is away."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from itertools import chain

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from lockgate.storage.engine import Database
from lockgate.telemetry.model import Span
from lockgate.telemetry.rows import COLUMNS, Row, redacted, unredacted

log = logging.getLogger(__name__)

_REDACTED_TOGETHER = 64
_RETRY = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between tries, the last one repeating


class SpanTable:
    """The ``spans`` of a traces database, for one thread to write into."""

    def __init__(self, traces: Database) -> None:
        self._traces = traces
        self._insert = _insert_statement(traces.dialect)
        self._connection: PoolProxiedConnection | None = None

    def write(self, spans: list[Span], until: Callable[[], float]) -> int:
        """Write them in one transaction, redacted; gives how many were lost.

        Tries again while the database is locked or away, up to the time (of the monotonic clock) that ``until`` says.
        What cannot be encoded, or is refused by the driver, is lost alone.
        """
        rows: list[Row] = []
        lost = 0
        for start in range(0, len(spans), _REDACTED_TOGETHER):
            encoded = [_encoded(span) for span in spans[start : start + _REDACTED_TOGETHER]]
            good = [row for row in encoded if row is not None]
            lost += len(encoded) - len(good)
            rows += redacted(good)
        tries = 0
        while rows:
            try:
                self._insert_rows(rows)
                break
            except Exception as failure:  # a worker's boundary: the thread must outlive any driver error
                if not _passing(failure):
                    rows, refused = self._without_the_bad(rows)
                    lost += refused
                    continue
                if tries == 0:
                    log.warning("spans are waiting for the traces database: %s", failure)
                pause = _RETRY[min(tries, len(_RETRY) - 1)]
                if time.monotonic() + pause > until():
                    return lost + len(rows)
                tries += 1
                time.sleep(pause)
        return lost

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):  # it is given up either way
                self._connection.close()
        self._connection = None

    def _insert_rows(self, rows: list[Row]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._insert(self._connection, rows)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> PoolProxiedConnection:
        """A connection of the thread's own, which waits for a lock only briefly: closing has a deadline to keep."""
        connection = self._traces.engine.raw_connection()
        connection.detach()
        if self._traces.dialect == "sqlite":
            connection.cursor().execute("pragma busy_timeout=250")
        return connection

    def _without_the_bad(self, rows: list[Row]) -> tuple[list[Row], int]:
        """The driver refuses a value: write row by row; gives those that still wait, and how many it refused."""
        refused = 0
        for number, row in enumerate(rows):
            try:
                self._insert_rows([row])
            except Exception as failure:  # a worker's boundary, as in write
                if _passing(failure):
                    return rows[number:], refused
                refused += 1
                log.warning("span %r cannot be written: %s", row[3], failure)
        return [], refused


def _encoded(span: Span) -> Row | None:
    try:
        return unredacted(span)
    except (TypeError, ValueError, RecursionError) as failure:
        log.warning("span %r cannot be encoded: %s", span.name, failure)
        return None


def _insert_statement(dialect: str) -> Callable[[PoolProxiedConnection, list[Row]], None]:
    if dialect != "sqlite":
        statement = _statement("%s", 1)

        def postgresql(connection: PoolProxiedConnection, rows: list[Row]) -> None:
            cursor = connection.cursor()
            cursor.executemany(statement, rows)
            connection.commit()

        return postgresql

    # Each statement lets the threads that serve requests run, and then waits for its turn again: so, few statements.
    # Fifty rows have fewer than the 999 parameters that old releases of SQLite take.
    statements = [(size, _statement("?", size)) for size in (50, 5, 1)]

    def sqlite(connection: PoolProxiedConnection, rows: list[Row]) -> None:
        cursor = connection.cursor()
        cursor.execute("begin immediate")
        try:
            start = 0
            for size, statement in statements:
                while len(rows) - start >= size:
                    cursor.execute(statement, list(chain.from_iterable(rows[start : start + size])))
                    start += size
            cursor.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.OperationalError):  # a full disk has ended it already
                cursor.execute("rollback")
            raise

    return sqlite


def _statement(mark: str, rows: int) -> str:
    row = f"({', '.join([mark] * len(COLUMNS))})"
    return (
        f"insert into spans ({', '.join(COLUMNS)}) values {', '.join([row] * rows)}"  # noqa: S608
        " on conflict (trace_id, span_id) do nothing"  # a batch whose commit was not confirmed is written again
    )


def _passing(failure: Exception) -> bool:
    """Whether another try can help: locked, disk full, connection lost; not a value the driver refuses."""
    cause = failure.orig if isinstance(failure, DBAPIError) else failure
    return any(kind.__name__ in ("OperationalError", "InterfaceError") for kind in type(cause).__mro__)
