"""Knows when nothing has changed since the last lock, without reading the files again.

The answer of a whole `lockgate lock` is kept with the state of every file of the project: size, inode, modification
and change time. Change time cannot be set by a program, so a checkout that restores old modification times is seen.
What was touched in the last seconds before the answer could change again within one tick of the file system's clock
("racy git"), so then nothing is kept. The lock file itself is compared by its bytes. Whatever is in doubt is read.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import msgspec

from lockgate import __version__
from lockgate.versions.model import LockResult

CACHE = "lock.cache"
RACY_SECONDS = 2.0
MAX_FILES = 50_000
_SKIPPED = frozenset({".git", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_LOCK_FILE = "lockgate.lock"


class _Kept(msgspec.Struct, frozen=True):
    state: str
    result: LockResult


class State(msgspec.Struct, frozen=True):
    """All files of a project at one moment. ``newest``: the last change of any of them but the lock file."""

    digest: str
    newest: float


def look(root: Path, home: Path, now: float) -> State | None:
    """The state of the project's files; None when there are too many to look at, or git keeps house elsewhere."""
    git = _git_state(root)
    if git is None:
        return None
    seen = hashlib.sha256(f"{__version__} {sys.version_info[:2]} {int(now // 86400)} {git}\n".encode())
    newest, count = 0.0, 0
    for place, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED
            and os.path.join(place, name) != str(home)
            and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        )
        count += len(files) + 1
        if count > MAX_FILES:
            return None
        for name in sorted(files):
            path = os.path.join(place, name)
            if name == _LOCK_FILE:
                continue
            try:
                one = os.stat(path)
                own = os.lstat(path)
            except OSError:
                return None
            newest = max(newest, one.st_ctime, one.st_mtime, own.st_ctime)
            state = (path, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino, one.st_mode, own.st_ctime_ns)
            seen.update(repr(state).encode("utf-8", "surrogateescape"))
        seen.update(repr((place, folders)).encode("utf-8", "surrogateescape"))
    lock = root / _LOCK_FILE
    seen.update(lock.read_bytes() if lock.is_file() else b"-")
    return State(seen.hexdigest(), newest)


def recall(root: Path, home: Path, now: float) -> LockResult | None:
    """The last answer, when it still holds and what it names is still kept; else None."""
    try:
        kept = msgspec.json.decode((home / CACHE).read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    here = (home / "control.db").is_file() and all(
        (home / "blobs/sha256" / digest.removeprefix("sha256:")).is_file()
        for one in kept.result.versions
        for digest in (one.digest, one.settings)
    )
    state = look(root, home, now) if here else None
    return kept.result if state is not None and state.digest == kept.state else None


def remember(root: Path, home: Path, before: State | None, result: LockResult, now: float) -> None:
    """Keep the answer, when nothing changed while it was worked out or shortly before."""
    after = look(root, home, now)
    if before is None or after is None or after.newest > before.newest or before.newest > now - RACY_SECONDS:
        return
    told = [finding for finding in result.warnings if finding.kind != "number"]  # of that lock, not of this state
    kept = _Kept(after.digest, msgspec.structs.replace(result, changes=[], warnings=told, written=False))
    temporary = home / f".{CACHE}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(kept))
    os.replace(temporary, home / CACHE)


def _git_state(root: Path) -> str | None:
    """What git has checked out: a new commit of the same files is news. None when it cannot be told cheaply."""
    git = next((place / ".git" for place in (root, *root.parents) if (place / ".git").exists()), None)
    if git is None:
        return "no git"
    try:
        head = (git / "HEAD").read_text()
        name = head.removeprefix("ref: ").strip()
        ref = (git / name).read_text() if head.startswith("ref: ") and (git / name).is_file() else ""
        packed = (git / "packed-refs").stat().st_mtime_ns if (git / "packed-refs").exists() else 0
    except OSError:
        return None  # a worktree, or none of ours
    return f"{head} {ref} {packed}"


def wall_clock() -> float:
    """Now, by the clock that file systems use."""
    return time.time()
