"""A database and what SQLite puts beside it are their owner's alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lockgate.storage.private import keep_private


@pytest.fixture(autouse=True)
def wide_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def write(connection: sqlite3.Connection) -> None:
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table if not exists t (x)")
    connection.execute("insert into t values (1)")
    connection.commit()


def test_a_new_one_is_private_with_its_log_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "state" / "cache.db"
    keep_private(path)
    with closing(sqlite3.connect(path)) as connection:
        write(connection)
        assert rights(path.parent) == {"cache.db": 0o600, "cache.db-wal": 0o600, "cache.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_one_that_others_could_read_is_theirs_no_more_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path)) as connection:
        write(connection)
        assert rights(tmp_path)["cache.db-wal"] == 0o644
        keep_private(path)
        assert set(rights(tmp_path).values()) == {0o600}


def test_it_takes_no_lock_from_a_connection_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    keep_private(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        keep_private(path)
        script = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('begin immediate')"
        other = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "database is locked" in other.stderr


def test_a_folder_that_was_there_keeps_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    keep_private(tmp_path / "cache.db")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_it_is_private_too_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    keep_private(tmp_path / "cache.db")
    assert rights(tmp_path) == {"cache.db": 0o600}
