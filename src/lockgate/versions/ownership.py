"""Who answers for each agent, prompt, tool and knowledge base of a project, and where that stands.

A file's own ``owner:`` comes first, then CODEOWNERS, then the project's ``owner:``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from lockgate.errors import InputError
from lockgate.project.model import Project
from lockgate.project.service import PROJECT_FILE
from lockgate.project.yamlfile import read_text, read_yaml
from lockgate.versions.owners import PLACES, rule_for

Kind = Literal["agent", "prompt", "tool", "knowledge base"]

PROMPT_SUFFIXES = frozenset({".md", ".txt", ".yaml", ".yml", ".j2", ".jinja", ".prompt"})
_YAML = (".yaml", ".yml")


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody answers for. ``stated`` says where: ``prompts/a.yaml:3``; empty when nobody does."""

    kind: Kind
    name: str
    path: str  # POSIX, from the project's root
    owner: str | None = None
    stated: str = ""


class Ownership:
    """Finds owners; CODEOWNERS is read once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.place = next((place for place in PLACES if (project.root / place).is_file()), None)
        self._rules = "" if self.place is None else read_text(project.root / self.place, shown_as=self.place)

    def everything(self) -> list[Owned]:
        """Every agent, prompt, tool and knowledge base, with its owner."""
        return [self.of(kind, path) for kind, path in _things(self.project.root)]

    def of(self, kind: Kind, path: Path) -> Owned:
        """One thing's owner. A file that cannot be read states none: `doctor` says what is wrong with it."""
        shown = path.relative_to(self.project.root).as_posix()
        name, own, line = _own(kind, path, shown)
        if own is not None:
            return Owned(kind=kind, name=name, path=shown, owner=own, stated=f"{shown}:{line}")
        rule = rule_for(shown, self._rules)
        if rule is not None and rule.owners is not None:
            return Owned(kind=kind, name=name, path=shown, owner=rule.owners, stated=f"{self.place}:{rule.line}")
        if self.project.config.owner is not None:
            return Owned(kind=kind, name=name, path=shown, owner=self.project.config.owner, stated=PROJECT_FILE)
        return Owned(kind=kind, name=name, path=shown)


def prompt_files(root: Path) -> list[Path]:
    """Every prompt below ``prompts/``."""
    return _files(root / "prompts", PROMPT_SUFFIXES)


def _things(root: Path) -> Iterator[tuple[Kind, Path]]:
    for path in _files(root / "agents", frozenset(_YAML)):
        yield "agent", path
    for path in prompt_files(root):
        yield "prompt", path
    for path in _files(root / "tools", frozenset(_YAML)):
        yield "tool", path
    folder = root / "kb"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith("."):
            yield "knowledge base", path


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _own(kind: Kind, path: Path, shown: str) -> tuple[str, str | None, int]:
    """The name and owner that a file gives itself, and the owner's line."""
    if path.suffix not in _YAML or not path.is_file():
        return path.stem if path.is_file() else path.name, None, 0
    try:
        document = read_yaml(path, shown_as=shown)
    except InputError:
        return path.stem, None, 0
    place: tuple[str, ...] = {"agent": ("agent",), "tool": ("tool",)}.get(kind, ())
    data = document.data
    for key in place:
        data = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        return path.stem, None, 0
    name, owner = data.get("name"), data.get("owner")
    label = name if isinstance(name, str) else path.stem
    if kind == "agent" and isinstance(data.get("version"), int):
        label = f"{label}@{data['version']}"
    return label, owner if isinstance(owner, str) and owner else None, document.line((*place, "owner"))
