"""Makes a new project from a template: files below ``templates/``, with two names filled in.

A template is ``common/`` with the files of its own laid over it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from lockgate.errors import InputError
from lockgate.project.model import NAME

TEMPLATES = Path(__file__).parent / "templates"

AGENTS = {"support": "support", "rag": "policy-answers", "python": "triage", "langgraph": "assistant"}
"""Every template, with the name of its agent."""

CI = {"github": "github", "gitlab": "gitlab-ci.yml"}
"""Where each CI server's own file stands among the templates."""

_DOTTED = {"github": ".github", "gitignore": ".gitignore", "gitlab-ci.yml": ".gitlab-ci.yml"}
"""Names that would mean something to the tools around this repository."""


def scaffold(name: str, template: str, folder: Path, *, ci: str = "github") -> list[Path]:
    """Write the project ``name`` into ``folder``; returns the files' paths from there, sorted.

    ``ci``: whose workflow it gets, one of :data:`CI`, or ``none``.

    All or nothing: raises :class:`InputError` for a bad name, an unknown template, a file that exists already, or a
    place that cannot be written.
    """
    if re.fullmatch(NAME, name) is None:
        raise InputError(
            f"{name!r} is not a project name",
            remedy="start with a letter or digit; then letters, digits, '.', '_' and '-' (--folder is for the place)",
        )
    if template not in AGENTS:
        close = get_close_matches(template, AGENTS, n=1)
        known = ", ".join(AGENTS)
        remedy = f"did you mean {close[0]!r}? There are {known}" if close else f"choose one of {known}"
        raise InputError(f"no template {template!r}", remedy=remedy)
    if ci not in (*CI, "none"):
        raise InputError(f"no CI server {ci!r}", remedy=f"choose one of {', '.join(CI)}, none")
    files = _files(name, template, ci)
    _check_free(folder, files)
    try:
        _write(folder, files)
    except OSError as failure:
        raise InputError(
            f"the project cannot be written: {failure.strerror or failure}",
            path=folder,
            remedy="name another place with --folder",
        ) from None
    return sorted(files)


def _files(name: str, template: str, ci: str) -> dict[Path, str]:
    """The project's files by their paths, placeholders filled in."""

    def filled(text: str) -> str:
        return text.replace("__NAME__", name).replace("__AGENT__", AGENTS[template])

    found: dict[Path, str] = {}
    for layer in ("common", template):
        for source in (TEMPLATES / layer).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                first, *rest = source.relative_to(TEMPLATES / layer).parts
                if first in CI.values() and first != CI.get(ci):
                    continue
                target = Path(_DOTTED.get(first, first), *map(filled, rest))
                found[target] = filled(source.read_text("utf-8"))
    return found


def _check_free(folder: Path, files: Mapping[Path, str]) -> None:
    folders = [folder, *(folder / parent for path in files for parent in path.parents)]
    taken = [folder / path for path in files if os.path.lexists(folder / path)]
    taken += [place for place in folders if os.path.lexists(place) and not place.is_dir()]
    if taken:
        first, *more = sorted(set(taken))
        others = f" (and {len(more)} more)" if more else ""
        raise InputError(
            f"{str(first)!r}{others} exists already; nothing was written",
            remedy="name another place with --folder, or move what is there",
        )


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    """Everything is written beside its place first, so that what can go wrong leaves nothing behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.resolve().name}.{os.getpid()}"
    moved: list[Path] = []
    try:
        for path, text in files.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_text(text, "utf-8")
        if not folder.exists():
            os.rename(beside, folder)
            return
        for path in files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.rename(beside / path, folder / path)
            moved.append(folder / path)
    except OSError:
        for file in moved:
            file.unlink()
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
