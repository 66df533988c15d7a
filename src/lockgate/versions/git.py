"""The git commit a version was locked from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lockgate.project.service import PROJECT_FILE

TIMEOUT_SECONDS = 10.0


def clean_commit(root: Path, except_for: str) -> str | None:
    """The commit checked out, when the project's files are as it has them; else None (also without git).

    ``except_for`` is a file that may differ: the lock file itself. A project in a folder that the repository around it
    ignores is in no commit of that.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return None
    said = _git(root, "status", "--porcelain=v2", "--branch", "--", ".", f":(exclude){except_for}")
    head, *changes = (said or "").splitlines() or [""]
    if any(not line.startswith("#") for line in changes):
        return None
    commit = head.removeprefix("# branch.oid ")
    if commit == head or commit == "(initial)" or not _git(root, "ls-files", "--", PROJECT_FILE):
        return None
    return commit


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
