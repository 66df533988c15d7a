"""Checks of the machine: disk and clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from lockgate.project.service import PROJECT_FILE
from lockgate.versions.doctor.model import Examined, Note
from lockgate.versions.lockfile import LOCK_FILE

ENOUGH_DISK = 1_000_000_000
CLOCK_SLACK = 120.0


def disk(examined: Examined) -> Iterator[Note]:
    """Room for traces and bundles."""
    project = examined.project
    folder = project.home if project.home.exists() else project.root
    free = shutil.disk_usage(folder).free
    if free < ENOUGH_DISK:
        message = f"{free / 1e6:,.0f} MB are free where {folder.name!r} is"
        yield Note("machine", "problem", message, "make room: traces and bundles need it")


def clock_behind_files(examined: Examined) -> Iterator[Note]:
    """A clock that is earlier than the files it wrote."""
    paths = [examined.project.root / name for name in (PROJECT_FILE, LOCK_FILE)]
    newest = max(path.stat().st_mtime for path in paths if path.exists())
    if newest > examined.now + CLOCK_SLACK:
        message = f"the clock is {newest - examined.now:,.0f} s behind the project's files"
        yield Note("machine", "problem", message, "set the clock: leases and budgets go by it")
