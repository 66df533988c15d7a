"""One side of a diff that is a git revision: the project as a commit has it, read without touching the work tree."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lockgate.errors import InputError, NotFound, Unavailable
from lockgate.project.model import Project
from lockgate.project.service import load_project

TIMEOUT_SECONDS = 30.0
MAX_ARCHIVE = 1_000_000_000
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/~^@{}-]*")


def commit_of(root: Path, revision: str) -> str | None:
    """The commit a revision names (``HEAD~1``, a branch, a SHA or the start of one), or None."""
    if not _REVISION.fullmatch(revision):
        return None
    try:
        answer = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
    except (NotFound, Unavailable):
        return None
    return answer.decode().strip() or None


@contextmanager
def project_at(project: Project, revision: str) -> Iterator[Project]:
    """The project as ``revision`` has it, in a folder that is gone afterwards.

    Raises :class:`NotFound` when there is no such revision, or no project in it.
    """
    commit = commit_of(project.root, revision)
    if commit is None:
        raise NotFound(
            f"git has no revision {revision!r} here",
            remedy="git log --oneline; a CI job's checkout may need its whole history",
        )
    data = _git(project.root, "archive", "--format=tar", commit, "--", ".")
    if len(data) > MAX_ARCHIVE:
        raise InputError(f"{revision!r} has more than {MAX_ARCHIVE:,} bytes", remedy="compare digests instead")
    with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
        root = Path(folder).resolve() / "project"
        root.mkdir()
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(root, filter="data")
        except tarfile.TarError as wrong:
            raise InputError(f"{revision!r} cannot be read: {wrong}", remedy="check out the revision") from None
        if not (root / "lockgate.yaml").is_file():
            raise NotFound(f"{revision!r} has no lockgate.yaml here", remedy="name a later revision")
        found = load_project(root, last_good=False)
        yield Project(root=root, home=project.home, config=found.config)


def _git(root: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, timeout=TIMEOUT_SECONDS, check=True
        )
    except FileNotFoundError:
        raise Unavailable("git is not installed", remedy="install git, or name digests and files") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"git took more than {TIMEOUT_SECONDS:g} s", remedy="try again") from None
    except subprocess.CalledProcessError as failure:
        said = failure.stderr.decode(errors="replace").strip().splitlines()
        raise NotFound(f"git {arguments[0]}: {said[0] if said else 'failed'}", remedy="git log --oneline") from None
    return done.stdout
