"""Findings, detectors and outcomes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

Action = Literal["allow", "flag", "redact", "block"]
Side = Literal["input", "output"]

CONTEXT = 64
"""Characters before a place that a detector may look back at."""


class Finding(NamedTuple):
    """A part of a text that a detector recognised: ``text[start:end]`` is of this kind."""

    start: int
    end: int
    kind: str


class Detector(Protocol):
    """Recognises one sort of thing in texts, also in texts that are still growing.

    ``scan`` yields findings that begin at ``start`` or later, from left to right, not overlapping. It reads at most
    :data:`CONTEXT` characters before a finding, and takes time that grows with the text, not faster.

    ``tail`` is the place from which a growing text is still open: whatever follows, the findings that begin before
    it are those that ``scan`` gives now. At least ``start``.
    """

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]: ...

    def tail(self, text: str, start: int = 0) -> int: ...


class Outcome(msgspec.Struct, kw_only=True):
    """What one guard did with one call: for the span, the metrics and the log. Never what it found, only how much."""

    guard: str
    side: Side
    action: Action
    findings: dict[str, int] = msgspec.field(default_factory=dict)
    nanos: int = 0
    score: float | None = None

    def attributes(self) -> dict[str, Any]:
        """As it stands on the span."""
        shown: dict[str, Any] = {
            "guard": self.guard,
            "side": self.side,
            "action": self.action,
            "micros": (self.nanos + 50) // 100 / 10,
        }
        if self.findings:
            shown["findings"] = self.findings
        if self.score is not None:
            shown["score"] = self.score
        return shown

    def count(self, kind: str, number: int = 1) -> None:
        self.findings[kind] = self.findings.get(kind, 0) + number
