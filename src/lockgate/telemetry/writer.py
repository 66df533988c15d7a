"""Takes spans from the hot path and writes them behind it, in batches.

``emit`` only appends to a queue. One thread per process drains the queue some 50 ms later with one raw
``executemany`` in one transaction, so that several processes can share one ``traces.db``. A queue that is full
drops spans and counts them; a database that is locked or away is tried again, and nothing is dropped meanwhile
but what no longer fits.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from lockgate.storage.engine import Database
from lockgate.telemetry.model import Span
from lockgate.telemetry.redaction import may_hold_secrets, redact, redact_bytes

log = logging.getLogger(__name__)

COLUMNS = (
    "trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "end_ns", "status", "status_message", "run_id",
    "agent", "effective_digest", "model", "input_tokens", "output_tokens", "cost_nano", "attributes", "events",
)  # fmt: skip
Row = tuple[Any, ...]
_MESSAGE, _ATTRIBUTES, _EVENTS = (COLUMNS.index(name) for name in ("status_message", "attributes", "events"))

_LINGER = 0.05  # seconds a batch gathers
_BATCH = 2_000  # spans in one transaction
_REDACTED_TOGETHER = 64
_RETRY = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between tries, the last one repeating
_EMPTY = b"{}", b"[]"


class SpanWriter:
    """Writes spans into one traces database from any thread. Make one per process, after any fork."""

    def __init__(self, traces: Database, *, capacity: int = 50_000) -> None:
        self.dropped = 0
        """Spans given up since the start: queue full, or the database away until the end."""
        self._traces = traces
        self._capacity = capacity
        self._queue: deque[Span | threading.Event] = deque()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._idle = False
        self._closing = False
        self._give_up_at = float("inf")
        self._insert = _insert_statement(traces.dialect)
        self._connection: PoolProxiedConnection | None = None
        self._thread = threading.Thread(target=self._run, name="lockgate-spans", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, span: Span) -> None:
        """Hand over a finished span. Never blocks, never raises."""
        if len(self._queue) >= self._capacity or self._closing:
            self.dropped += 1
            return
        self._queue.append(span)
        # The thread says it is idle before it looks at the queue for the last time, so one of the two sees the other.
        if self._idle:
            self._work.set()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every span emitted so far is visible to readers; False when ``timeout`` seconds did not do."""
        if not self._thread.is_alive():
            return not self._queue
        written = threading.Event()
        self._queue.append(written)
        self._hurry.set()
        self._work.set()
        return written.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued and stop; after ``timeout`` seconds the rest counts as dropped."""
        if self._closing:
            return
        self._give_up_at = time.monotonic() + timeout
        self._closing = True
        self._hurry.set()
        self._work.set()
        self._thread.join(timeout + 1.0)
        atexit.unregister(self.close)
        if self.dropped:
            log.warning("%d spans were not recorded", self.dropped)

    def _run(self) -> None:
        while True:
            self._idle = True
            if not self._queue and not self._closing:
                self._work.wait()
            self._idle = False
            self._work.clear()
            if not self._closing and len(self._queue) < _BATCH:
                self._hurry.wait(_LINGER)
            self._hurry.clear()
            while self._queue:
                self._drain()
            if self._closing:
                self._disconnect()
                return

    def _drain(self) -> None:
        """Write one batch, then tell those who wait in ``flush``."""
        spans: list[Span] = []
        waiting: list[threading.Event] = []
        rows: list[Row] = []
        while self._queue and len(spans) < _BATCH:
            item = self._queue.popleft()
            if isinstance(item, Span):
                spans.append(item)
            else:
                waiting.append(item)
        if spans:
            for start in range(0, len(spans), _REDACTED_TOGETHER):
                encoded = map(self._encode, spans[start : start + _REDACTED_TOGETHER])
                rows += redacted([row for row in encoded if row is not None])
            self._write(rows)
        for written in waiting:
            written.set()

    def _encode(self, span: Span) -> Row | None:
        try:
            return _to_row(span)
        except (TypeError, ValueError, RecursionError) as failure:
            self.dropped += 1
            log.warning("span %r cannot be encoded: %s", span.name, failure)
            return None

    def _write(self, rows: list[Row]) -> None:
        """Insert the rows, trying again for as long as the database is away."""
        tries = 0
        while rows:
            try:
                self._insert_rows(rows)
                return
            except Exception as failure:  # a worker's boundary: the thread must outlive any driver error
                if not _passing(failure):
                    rows = self._without_the_bad(rows)
                    continue
                if tries == 0:
                    log.warning("spans are waiting for the traces database: %s", failure)
                pause = _RETRY[min(tries, len(_RETRY) - 1)]
                if time.monotonic() + pause > self._give_up_at:
                    self.dropped += len(rows)
                    return
                tries += 1
                time.sleep(pause)

    def _insert_rows(self, rows: list[Row]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._insert(self._connection, rows)
        except BaseException:
            self._disconnect()
            raise

    def _connect(self) -> PoolProxiedConnection:
        """A connection of the thread's own, which waits for a lock only briefly: ``close`` has a deadline to keep."""
        connection = self._traces.engine.raw_connection()
        connection.detach()
        if self._traces.dialect == "sqlite":
            connection.cursor().execute("pragma busy_timeout=250")
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):  # it is given up either way
                self._connection.close()
        self._connection = None

    def _without_the_bad(self, rows: list[Row]) -> list[Row]:
        """The driver refuses a value: write row by row, drop those it refuses; returns what still waits."""
        for number, row in enumerate(rows):
            try:
                self._insert_rows([row])
            except Exception as failure:  # a worker's boundary, as in _write
                if _passing(failure):
                    return rows[number:]
                self.dropped += 1
                log.warning("span %r cannot be written: %s", row[3], failure)
        return []


def to_row(span: Span) -> Row:
    """A span as a row of ``spans``: columns in the order of :data:`COLUMNS`, secrets taken out."""
    return redacted([_to_row(span)])[0]


def redacted(rows: list[Row]) -> list[Row]:
    """The rows with secrets taken out of their text. Looked at together first: most hold none."""
    texts = (text for row in rows for text in (row[_MESSAGE].encode(), row[_ATTRIBUTES], row[_EVENTS]))
    return [_redacted(row) for row in rows] if may_hold_secrets(b"\n".join(texts)) else rows


def _redacted(row: Row) -> Row:
    cells = list(row)
    cells[_MESSAGE] = redact(row[_MESSAGE])
    cells[_ATTRIBUTES] = redact_bytes(row[_ATTRIBUTES])
    cells[_EVENTS] = redact_bytes(row[_EVENTS])
    return tuple(cells)


def _to_row(span: Span) -> Row:
    return (
        span.trace_id,
        span.span_id,
        span.parent_id,
        _text(span.name),
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        _text(span.status_message),
        span.run_id,
        _maybe(span.agent),
        span.effective_digest,
        _maybe(span.model),
        span.input_tokens,
        span.output_tokens,
        span.cost_nano,
        _json(span.attributes) if span.attributes else _EMPTY[0],
        _json(span.events) if span.events else _EMPTY[1],
    )


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # half of a surrogate pair, as models do emit
        return msgspec.json.encode(_cleaned(value), enc_hook=str)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(key)): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, (list, tuple)) else value


def _text(value: str) -> str:
    """Text any database takes: no lone surrogates, no NUL."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _maybe(value: str | None) -> str | None:
    return None if value is None else _text(value)


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
