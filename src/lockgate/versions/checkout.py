"""Writes a version's files into a folder, whole or not at all, and nowhere else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lockgate.errors import Corrupt
from lockgate.versions.bundle import safe_title


def write(code: Mapping[str, bytes], folder: Path) -> None:
    """Make ``folder`` hold exactly ``code`` (``POSIX path → bytes``).

    Another process that writes the same code at the same time is no problem; a reader never sees half of it.
    """
    for path in code:
        if not safe_title(path):
            raise Corrupt(f"a file has the unsafe path {path!r}", remedy="do not run this version")
    if _holds(folder, code):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    suffix = f"{os.getpid()}.{os.urandom(4).hex()}"
    fresh, old = folder.with_name(f".{folder.name}.{suffix}"), folder.with_name(f".{folder.name}.{suffix}.old")
    try:
        fresh.mkdir()
        for path, data in code.items():
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        if folder.exists():
            os.replace(folder, old)
        try:
            os.rename(fresh, folder)
        except OSError:
            if not _holds(folder, code):  # else another process was first, with the same
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _holds(folder: Path, code: Mapping[str, bytes]) -> bool:
    """Whether the folder's files are exactly these; Python's caches do not count."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and (path.is_symlink() or not path.is_dir())
    }
    return found == code.keys() and all(
        not (folder / path).is_symlink() and (folder / path).read_bytes() == data for path, data in code.items()
    )
