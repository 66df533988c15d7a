"""The git commit a version was locked from."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT_SECONDS = 2.0


def clean_commit(root: Path, except_for: str) -> str | None:
    """The commit checked out, when the project's files are as it has them; else None (also without git).

    ``except_for`` is a file that may differ: the lock file itself.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return None
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--", ".", f":(exclude){except_for}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    head, *changes = answer.stdout.splitlines() or [""]
    if any(not line.startswith("#") for line in changes):
        return None
    commit = head.removeprefix("# branch.oid ")
    return commit if commit != head and commit != "(initial)" else None
