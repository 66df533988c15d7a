"""``lockgate.lock``: small, made for diffs and merges, committed beside the project file.

TOML, one table a version, one line a part, so that a review shows which parts of which agent changed and a merge
conflict is confined to one agent. It is written whole, atomically, by one process at a time.
"""

from __future__ import annotations

import fcntl
import os
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import Conflict, InputError
from lockgate.versions.model import LockedVersion

LOCK_FILE = "lockgate.lock"
FORMAT = 1
MAX_BYTES = 50_000_000  # a hundred agents are a hundredth of it
WAIT_SECONDS = 30.0
_HEADER = "# Written by `lockgate lock`. Commit it; do not edit it.\n"


def read_lock(root: Path) -> list[LockedVersion]:
    """The locked versions; none when there is no lock file yet."""
    data = read_bytes(root)
    if data is None:
        return []
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("not UTF-8", path=LOCK_FILE, remedy=_REMEDY) from None
    return parse_lock(text)


def read_bytes(root: Path) -> bytes | None:
    """The lock file as it stands; None when there is none."""
    path = root / LOCK_FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"more than {MAX_BYTES:,} bytes", path=LOCK_FILE, remedy=_REMEDY)
        return path.read_bytes()
    except FileNotFoundError:
        return None


_REMEDY = "take either side of a merge, then `lockgate lock`; or delete it and lock again"


def parse_lock(text: str) -> list[LockedVersion]:
    """Raises :class:`InputError` for a file that is half-written, merged by halves, or of another format."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        marker = next((n for n, line in enumerate(text.split("\n"), 1) if line[:7] in ("<<<<<<<", ">>>>>>>")), None)
        message = "a merge conflict" if marker else f"not a lock file: {wrong}"
        raise InputError(message, path=LOCK_FILE, line=marker, remedy=_REMEDY) from None
    if data.get("format") != FORMAT:
        raise InputError(
            f"format is {data.get('format')!r}, not {FORMAT}", path=LOCK_FILE, remedy="upgrade lockgate, or lock again"
        )
    try:
        return msgspec.convert(data.get("version", []), list[LockedVersion])
    except msgspec.ValidationError as wrong:
        raise InputError(f"not a lock file: {wrong}", path=LOCK_FILE, remedy=_REMEDY) from None


def render_lock(versions: Sequence[LockedVersion]) -> str:
    """The file's text, in one order whatever order they came in."""
    out = [_HEADER, f"format = {FORMAT}\n"]
    for entry in sorted(versions, key=lambda entry: (entry.agent, entry.version)):
        out.append("\n[[version]]\n")
        for key in ("agent", "version", "file", "digest", "settings"):
            out.append(f"{key} = {_toml(getattr(entry, key))}\n")
        for table in ("models", "parts"):
            values = getattr(entry, table)
            if values:
                out.append(f"[version.{table}]\n")
                out.extend(f"{_key(name)} = {_toml(value)}\n" for name, value in sorted(values.items()))
    return "".join(out)


def write_lock(root: Path, versions: Sequence[LockedVersion]) -> None:
    """Replace the lock file in one step: a reader sees the old one or the new one."""
    path = root / LOCK_FILE
    temporary = path.with_name(f".{LOCK_FILE}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(render_lock(versions))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Keeps two ``lockgate lock`` of one project apart; the second waits for the first."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock.guard", "w", encoding="utf-8") as guard:
        give_up = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise Conflict(
                        f"another `lockgate lock` has been at work for {WAIT_SECONDS:g} s", remedy="wait for it to end"
                    ) from None
                time.sleep(0.02)
        yield


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
