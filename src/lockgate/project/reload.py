"""Follows ``lockgate.yaml`` on disk, so that what of it is operational holds without a restart.

A file that cannot be read leaves the last good one in force. Versions that were deployed keep the providers they were
deployed with (:mod:`lockgate.versions.resolved`), whatever the file says by now: what they answer by changes with a
deploy alone.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from lockgate.errors import LockgateError
from lockgate.project import lastgood
from lockgate.project.model import Project
from lockgate.project.service import PROJECT_FILE, load_project

log = logging.getLogger(__name__)

Stamp = tuple[tuple[str, int, int, int], ...]


class ProjectFile:
    """The project file of one process. :meth:`refresh` replaces ``project.config``, which everybody reads."""

    def __init__(self, project: Project) -> None:
        self.problem: str | None = project.problem
        """What is wrong with the file as it stands; None when it is in force."""
        self._project = project
        self._seen: Stamp = ()  # it may have been changed since it was loaded
        self._looking = threading.Lock()
        if project.problem is None:
            lastgood.remember(project)

    def refresh(self) -> bool:
        """Look whether the file was changed, and take it if it is good. True when another is in force now.

        Whoever calls this while another thread does waits for what that one finds.
        """
        with self._looking:
            return self._refresh()

    def _refresh(self) -> bool:
        now = stamp(self._paths())
        if now == self._seen:
            return False
        self._seen = now
        try:
            read = load_project(self._project.root, last_good=False).config
        except LockgateError as wrong:
            self.problem = wrong.message
            log.warning("%s is not taken, the last good one stays in force: %s", PROJECT_FILE, wrong.message)
            return False
        self.problem = None
        if read == self._project.config:
            return False
        self._project.config = read
        lastgood.remember(self._project)
        self._seen = stamp(self._paths()) if len(self._paths()) != len(now) else now
        log.info("%s was changed, and is in force", PROJECT_FILE)
        return True

    def _paths(self) -> list[Path]:
        root = self._project.root
        named = [each.file for each in self._project.config.environments.values() if each.file is not None]
        return [root / PROJECT_FILE, *(root / name for name in sorted(named))]


def stamp(paths: list[Path]) -> Stamp:
    """What changes when a file does: its place on the disk, its size and its time."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
