"""What a check is given, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from lockgate.errors import InputError
from lockgate.project.model import Project
from lockgate.versions.locking import Packed
from lockgate.versions.model import LockedVersion
from lockgate.versions.service import Versions

Severity = Literal["problem", "advice"]
"""A problem makes ``lockgate doctor`` fail; advice does not."""


class Note(NamedTuple):
    """One finding. ``fix`` repairs it where that is safe, and returns what it did."""

    kind: str
    severity: Severity
    message: str
    remedy: str
    path: str | None = None
    line: int | None = None
    fix: Callable[[], str] | None = None

    @property
    def where(self) -> str:
        """``agents/a.yaml:3``, or nothing."""
        return "" if self.path is None else f"{self.path}:{self.line}" if self.line else self.path

    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "path": self.path,
            "line": self.line,
            "remedy": self.remedy,
            "fixable": self.fix is not None,
        }


class Examined(NamedTuple):
    """A project as it was read once, for all checks. ``online`` allows to ask providers."""

    project: Project
    versions: Versions
    now: float
    online: bool
    packed: list[Packed]
    broken: list[InputError]
    locked: list[LockedVersion]


Check = Callable[[Examined], Iterable[Note]]
