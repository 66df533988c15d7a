"""A database for tests: real, empty, and gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lockgate.storage.engine import Database, Kind, open_database

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  # where there is none, the ordinary temporary folder will do


@contextmanager
def memory_store(kind: Kind = "control") -> Iterator[Database]:
    """A fresh SQLite database with the full schema, in memory where the system has a file system there.

    It is the engine that production uses, so transactions behave as they do there.
    """
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None) as folder:
        database = open_database(Path(folder) / f"{kind}.db", kind)
        try:
            yield database
        finally:
            database.close()
