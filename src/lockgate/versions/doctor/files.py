"""Checks of files: secrets, and what git should and should not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lockgate.errors import InputError
from lockgate.project.service import PROJECT_FILE
from lockgate.project.yamlfile import read_text
from lockgate.versions import layout
from lockgate.versions.doctor.model import Examined, Note
from lockgate.versions.inlined import secret_lines
from lockgate.versions.lockfile import LOCK_FILE, one_at_a_time

FOLDERS = ("agents", "prompts", "schemas", "evals", "policies", "tools", "kb", ".github/workflows")
LARGEST = 1_000_000
"""Bytes of a file that is looked through for secrets; larger ones are data."""


def inlined_secrets(examined: Examined) -> Iterator[Note]:
    """What looks like a secret in a file that goes into git."""
    root = examined.project.root
    top = [root / name for name in (PROJECT_FILE, "prices.yaml", "CODEOWNERS", "README.md")]
    below = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*"))]
    for path in [*top, *below]:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST:
            continue
        shown = path.relative_to(root).as_posix()
        try:
            lines = secret_lines(read_text(path, shown_as=shown))
        except InputError:  # not text
            continue
        for line in lines:
            yield Note("secret", "problem", "something that looks like a secret stands here",
                       "replace it by a reference such as ${env:NAME}, and revoke it", shown, line)  # fmt: skip


def state_in_git(examined: Examined) -> Iterator[Note]:
    """Databases and the signing key must not be committed."""
    root, home = examined.project.root, examined.project.home
    if not (root / ".git").exists() or not home.is_relative_to(root):
        return
    name, ignored = home.relative_to(root).as_posix(), root / ".gitignore"
    lines = read_text(ignored, shown_as=".gitignore").split("\n") if ignored.is_file() else []
    if any(line.strip().strip("/") == name for line in lines):
        return

    def ignore() -> str:
        before = read_text(ignored, shown_as=".gitignore") if ignored.is_file() else ""
        ignored.write_text(f"{before}{'' if not before or before.endswith(chr(10)) else chr(10)}{name}/\n", "utf-8")
        return f"added {name}/ to .gitignore"

    message = f"git does not ignore {name}/, where databases and the signing key are"
    yield Note("project", "problem", message, f"add the line {name}/", ".gitignore", None, ignore)


def lock_outside_git(examined: Examined) -> Iterator[Note]:
    """A lock file that git ignores cannot be reviewed."""
    ignored = examined.project.root / ".gitignore"
    if not ignored.is_file():
        return
    for number, line in enumerate(read_text(ignored, shown_as=".gitignore").split("\n"), 1):
        if line.strip().lstrip("/") in (LOCK_FILE, "*.lock"):
            yield Note("lock", "problem", f"git ignores {LOCK_FILE}, so nobody can review or restore what is locked",
                       "remove the line, and commit the file", ".gitignore", number)  # fmt: skip


def open_to_others(examined: Examined) -> Iterator[Note]:
    """The machine's key, readable by others."""
    path = examined.project.home / "secret"
    if path.is_file() and path.stat().st_mode & 0o077:
        yield Note("machine", "problem", f"{path.name!r} in {examined.project.home.name}/ is open to other users",
                   f"chmod 600 {path.name}", None, None, _closing(path))  # fmt: skip


def _closing(path: Path) -> Callable[[], str]:
    def close() -> str:
        path.chmod(0o600)
        return f"made {path.name} readable by its owner alone"

    return close


def layout_broken(examined: Examined) -> Iterator[Note]:
    """Blobs that are there, and an index of them that is not to be read."""
    blobs, home = examined.versions.blobs, examined.project.home

    def rebuild() -> str:
        with one_at_a_time(home):
            return f"wrote index.json anew, with {layout.rebuild(blobs)} manifests; `lockgate lock` names them"

    fix: Callable[[], str] | None = rebuild
    for message in layout.problems(blobs):
        yield Note("layout", "problem", message, "lockgate doctor --fix writes it anew", None, None, fix)
        fix = None
