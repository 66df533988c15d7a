"""What trials came to since the last write to the database, in a file: a kill loses none of it.

The database is written to a few times a second, a file at once: what is handed to the kernel outlives the process,
whatever ends it. (A power loss may take it; the database's own writes it does not.) Two files take turns: while the
database is written to, what comes goes to the other one, and the first is emptied when all of it is there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


class PaidFile:
    """Lines that are not in the database yet. ``name`` is whose they are; each process has files of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._files: list[int] = []
        self._now = 0

    def note(self, line: bytes) -> None:
        """Write one line. A disk that takes no more is the database's to report."""
        with suppress(OSError):
            if not self._files:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._files = [self._open(turn) for turn in (0, 1)]
            os.write(self._files[self._now], line + b"\n")

    def turn(self) -> Callable[[], None]:
        """From now on the other file; gives what empties this one, for when all of it is in the database."""
        if not self._files:
            return lambda: None
        file = self._files[self._now]
        self._now = 1 - self._now
        return lambda: os.ftruncate(file, 0)

    def close(self) -> None:
        """Remove what is empty; what is not, a write to the database that failed, stays for the next evaluation."""
        files, self._files = self._files, []
        for turn, file in enumerate(files):
            with suppress(OSError):
                if not os.fstat(file).st_size:
                    self._path(turn).unlink()
            os.close(file)

    def left_behind(self) -> Iterator[list[bytes]]:
        """The whole lines of each file that a dead process left, the oldest first: what a judge said comes before what
        became of it. It is removed when the next is asked for."""
        for path in sorted(self._folder.glob(f"{self._name}-*"), key=_last_written):
            try:
                file = os.open(path, os.O_RDWR)
            except OSError:
                continue  # its process has just ended by itself
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path.read_bytes().split(b"\n")[:-1]
                path.unlink()
            except OSError:
                continue  # its process lives, or another one was faster
            finally:
                os.close(file)

    def _open(self, turn: int) -> int:
        file = os.open(self._path(turn), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def _path(self, turn: int) -> Path:
        return self._folder / f"{self._name}-{os.getpid()}-{id(self)}.{turn}"


def _last_written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # its process has just ended by itself
        return 0
