"""Where a project is, told without reading its file: for commands that must start fast."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_FILE = "lockgate.yaml"


def find_root(start: Path) -> Path | None:
    """The nearest folder with a project file: ``start`` (or the folder it is in), or one above it."""
    folder = start.resolve()
    return next((place for place in (folder, *folder.parents) if (place / PROJECT_FILE).is_file()), None)


def home_of(root: Path) -> Path:
    """Where the project's state lives: where ``LOCKGATE_HOME`` says, else ``.lockgate/`` beside the project file."""
    named = os.environ.get("LOCKGATE_HOME")
    return Path(named).expanduser().absolute() if named else root / ".lockgate"
