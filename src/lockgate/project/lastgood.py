"""The last project file that could be read, for processes that start while the one on disk is broken.

A worker that dies must come back, and a switch must be thrown, whatever somebody is just writing into the file. It is
kept as it was understood, references to secrets included, secrets not.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from lockgate.project.model import Project, ProjectConfig

ENVIRONMENT = "LOCKGATE_LAST_GOOD"
"""Set for processes that are to go by the last good file when the one on disk cannot be read."""


def remember(project: Project) -> None:
    """Keep what the project's file says now."""
    path = _path(project.home)
    text = project.config.model_dump_json(by_alias=True)
    if path.is_file() and path.read_text("utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(text, "utf-8")
    draft.chmod(0o600)
    draft.replace(path)


def recall(home: Path) -> ProjectConfig | None:
    """What was kept; None when there is nothing that still can be read."""
    try:
        return ProjectConfig.model_validate_json(_path(home).read_bytes())
    except (OSError, ValidationError):
        return None


def _path(home: Path) -> Path:
    return home / "run" / "project.json"
