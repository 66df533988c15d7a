"""Where answers are kept: one SQLite file that all workers of a machine share, and in memory what a worker just used.

Losing it costs money, not correctness: it is written without waiting for the disk, and a file that cannot be read is
begun anew. A worker that finds it busy goes on without it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lockgate.storage.private import keep_private

if TYPE_CHECKING:  # sixteen megabytes, which only workers that compare questions need
    import numpy as np

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of all answers on one machine."""
MEMORY_BYTES = 16 * 1024 * 1024
"""Bytes of answers that one worker keeps in memory."""
MAX_ANSWER = 4 * 1024 * 1024
MAX_QUESTIONS = 2000
"""Questions of one scope that are compared: the newest."""
MAX_SCOPES = 32
"""Scopes whose questions a worker keeps in memory."""
_USED_SECONDS = 60.0  # how exactly it is known when an answer was last used
_FORMAT = 1

_TABLES = """
create table if not exists answers (
  key blob primary key, expires_at real not null, made_at real not null, used_at real not null,
  cost_nano integer not null, content_type text not null, size integer not null, body blob not null
) without rowid;
create index if not exists answers_by_use on answers (used_at);
create table if not exists questions (
  id integer primary key autoincrement, scope blob not null, key blob not null, expires_at real not null,
  text text not null, vector blob not null
);
create index if not exists questions_by_scope on questions (scope, id);
"""


class Kept(NamedTuple):
    """An answer, as it was given. Times are Unix seconds."""

    body: bytes
    content_type: str
    cost_nano: int
    made_at: float
    expires_at: float


class Near(NamedTuple):
    """A question that was asked before."""

    key: bytes
    text: str
    similarity: float


class _Questions:
    """The questions of one scope, as read so far."""

    __slots__ = ("expires", "keys", "last", "texts", "vectors")

    def __init__(self, size: int) -> None:
        import numpy as np

        self.last = 0
        self.keys: list[bytes] = []
        self.texts: list[str] = []
        self.expires = np.empty(0, dtype=np.float64)
        self.vectors = np.empty((0, size), dtype=np.float32)

    def add(self, rows: Sequence[tuple[int, bytes, float, str, bytes]]) -> None:
        """Rows of ``(id, key, expires_at, text, vector)``, the newest last."""
        import numpy as np

        self.last = rows[-1][0]
        size = self.vectors.shape[1]
        fitting = [row for row in rows if len(row[4]) == size * 4]
        if not fitting:
            return
        read = np.frombuffer(b"".join(row[4] for row in fitting), dtype=np.float32).reshape(len(fitting), size)
        self.keys = (self.keys + [row[1] for row in fitting])[-MAX_QUESTIONS:]
        self.texts = (self.texts + [row[3] for row in fitting])[-MAX_QUESTIONS:]
        self.expires = np.concatenate((self.expires, [row[2] for row in fitting]))[-MAX_QUESTIONS:]
        self.vectors = np.concatenate((self.vectors, read))[-MAX_QUESTIONS:]


class Answers:
    """The answers of one machine, as one worker sees them. Safe between threads."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, memory_bytes: int = MEMORY_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._memory: OrderedDict[bytes, Kept] = OrderedDict()
        self._in_memory = 0
        self._questions: OrderedDict[tuple[bytes, int], _Questions] = OrderedDict()
        self._connection: sqlite3.Connection | None = None
        self._since_trim = 0

    def get(self, key: bytes, now: float) -> Kept | None:
        """The answer, if it is there and fresh."""
        with self._lock:
            kept = self._memory.get(key)
            if kept is not None:
                if now < kept.expires_at:
                    self._memory.move_to_end(key)
                    return kept
                self._forget(key)
                return None
            try:
                row = (
                    self._open()
                    .execute(
                        "select body, content_type, cost_nano, made_at, expires_at, used_at from answers"
                        " where key = ? and expires_at > ?",
                        (key, now),
                    )
                    .fetchone()
                )
                if row is not None and now - row[5] > _USED_SECONDS:
                    self._open().execute("update answers set used_at = ? where key = ?", (now, key))
            except sqlite3.Error as failure:
                self._trouble(failure)
                return None
            if row is None:
                return None
            kept = Kept(*row[:5])
            self._remember(key, kept)
            return kept

    def put(self, key: bytes, kept: Kept, now: float) -> None:
        """Keep an answer; what was used longest ago makes room."""
        if len(kept.body) > MAX_ANSWER:
            return
        with self._lock:
            try:
                connection = self._open()
                connection.execute(
                    "insert or replace into answers values (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        key,
                        kept.expires_at,
                        kept.made_at,
                        now,
                        kept.cost_nano,
                        kept.content_type,
                        len(kept.body),
                        kept.body,
                    ),
                )
                self._since_trim += len(kept.body) + 1
                if self._since_trim > self._max_bytes // 64:
                    self._since_trim = 0
                    self._trim(connection, now)
            except sqlite3.Error as failure:
                self._trouble(failure)
                return
            self._remember(key, kept)

    def near(self, scope: bytes, vector: np.ndarray, threshold: float, now: float) -> list[Near]:
        """Questions of the same scope at least so similar, the nearest first. ``vector`` has length 1."""
        import numpy as np

        with self._lock:
            known = self._questions.get((scope, vector.size))
            if known is None:
                known = self._questions[scope, vector.size] = _Questions(vector.size)
                if len(self._questions) > MAX_SCOPES:
                    self._questions.popitem(last=False)
            self._questions.move_to_end((scope, vector.size))
            try:
                rows = (
                    self._open()
                    .execute(
                        "select id, key, expires_at, text, vector from questions where scope = ? and id > ?"
                        " order by id desc limit ?",
                        (scope, known.last, MAX_QUESTIONS),
                    )
                    .fetchall()
                )
            except sqlite3.Error as failure:
                self._trouble(failure)
                return []
            if rows:
                known.add(rows[::-1])
            likeness = np.where(known.expires > now, known.vectors @ vector.astype(np.float32), -1.0)
            found = [
                Near(known.keys[place], known.texts[place], float(likeness[place]))
                for place in np.flatnonzero(likeness >= threshold)
            ]
        return sorted(found, key=lambda near: -near.similarity)

    def put_question(self, scope: bytes, key: bytes, text: str, vector: np.ndarray, expires_at: float) -> None:
        with self._lock:
            try:
                self._open().execute(
                    "insert into questions (scope, key, expires_at, text, vector) values (?, ?, ?, ?, ?)",
                    (scope, key, expires_at, text, vector.astype("float32").tobytes()),
                )
            except sqlite3.Error as failure:
                self._trouble(failure)

    def size(self) -> tuple[int, int]:
        """Answers on this machine, and their bytes."""
        with self._lock:
            try:
                row = self._open().execute("select count(*), coalesce(sum(size), 0) from answers").fetchone()
            except sqlite3.Error as failure:
                self._trouble(failure)
                return 0, 0
        return int(row[0]), int(row[1])

    def clear(self) -> None:
        with self._lock:
            self._memory.clear()
            self._questions.clear()
            self._in_memory = 0
            try:
                connection = self._open()
                connection.execute("delete from answers")
                connection.execute("delete from questions")
            except sqlite3.Error as failure:
                self._trouble(failure)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # --- inside -----------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as broken:
                if isinstance(broken, sqlite3.OperationalError):
                    raise
                log.warning("the cache %s cannot be read and is begun anew: %s", self._path, broken)
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        try:
            keep_private(self._path)  # answers may hold what only their callers may read
        except OSError as failure:
            raise sqlite3.OperationalError(f"unable to open database file: {failure}") from failure
        connection = sqlite3.connect(self._path, timeout=0.05, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=off")
            connection.execute("pragma mmap_size=67108864")
            found = connection.execute("pragma user_version").fetchone()[0]
            if found not in (0, _FORMAT):
                connection.executescript("drop table if exists answers; drop table if exists questions;")
            connection.executescript(_TABLES)
            connection.execute(f"pragma user_version={_FORMAT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _trim(self, connection: sqlite3.Connection, now: float) -> None:
        connection.execute("delete from answers where expires_at <= ?", (now,))
        connection.execute("delete from questions where expires_at <= ?", (now,))
        over = connection.execute("select coalesce(sum(size), 0) from answers").fetchone()[0] - self._max_bytes
        if over <= 0:
            return
        going: list[tuple[bytes]] = []
        for key, size in connection.execute("select key, size from answers order by used_at"):
            going.append((key,))
            over -= size
            if over <= -self._max_bytes // 16:  # some room, or the next answer would begin again
                break
        connection.executemany("delete from answers where key = ?", going)

    def _remember(self, key: bytes, kept: Kept) -> None:
        if len(kept.body) > self._memory_bytes // 16:
            return
        self._forget(key)
        self._memory[key] = kept
        self._in_memory += len(kept.body)
        while self._in_memory > self._memory_bytes:
            self._forget(next(iter(self._memory)))

    def _forget(self, key: bytes) -> None:
        kept = self._memory.pop(key, None)
        if kept is not None:
            self._in_memory -= len(kept.body)

    def _trouble(self, failure: sqlite3.Error) -> None:
        if isinstance(failure, sqlite3.OperationalError) and "locked" in str(failure):
            return
        log.warning("the cache does not answer; going on without it: %s", failure)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
