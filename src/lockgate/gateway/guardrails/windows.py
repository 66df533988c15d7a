"""Texts that grow: what of them may go out, so that nothing goes out that is a part of a finding. Pure.

What a :class:`Window` lets out, piece by piece, is together what :func:`redacted` makes of the whole text: however it
was cut into pieces. The price is that the end of the text waits while it may still become a finding: mostly the last
word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lockgate.gateway.guardrails.model import CONTEXT, Detector, Finding

Replace = Callable[[Finding, str], str]
"""What stands in a finding's place; the text it names is given too."""


def findings(text: str, detectors: Sequence[Detector], start: int = 0) -> Iterator[Finding]:
    """What the detectors find from ``start``, from left to right: where two overlap, the one that begins first, then
    the longer one, then that of the earlier detector."""
    scans = [detector.scan(text, start) for detector in detectors]
    heads = [next(scan, None) for scan in scans]
    if not any(heads):
        return
    while True:
        best = -1
        for number, head in enumerate(heads):
            if head is not None and (best < 0 or _before(head, heads[best])):
                best = number
        if best < 0:
            return
        found = heads[best]
        assert found is not None
        yield found
        for number, head in enumerate(heads):
            if number == best:
                heads[number] = next(scans[number], None)
                head = heads[number]
            if head is not None and head.start < found.end:
                # From the end of what was taken on, as a window would that has let go of what stood before.
                scans[number] = detectors[number].scan(text, found.end)
                heads[number] = next(scans[number], None)


def _before(one: Finding, other: Finding | None) -> bool:
    assert other is not None
    return (one.start, -one.end) < (other.start, -other.end)


def label(finding: Finding, text: str) -> str:
    """``[EMAIL]``, ``[CARD]``…: no quote, no bracket that JSON text would have to escape."""
    return f"[{finding.kind.upper()}]"


def redacted(text: str, detectors: Sequence[Detector], replace: Replace = label) -> tuple[str, list[Finding]]:
    """The text with every finding replaced, and the findings."""
    found = list(findings(text, detectors))
    if not found:
        return text, found
    parts: list[str] = []
    place = 0
    for finding in found:
        parts += text[place : finding.start], replace(finding, text[finding.start : finding.end])
        place = finding.end
    parts.append(text[place:])
    return "".join(parts), found


class Window:
    """A text that comes in pieces. ``feed`` and ``finish`` give what may go out, findings replaced.

    ``replace`` None lets findings stand (they are only counted). ``note`` is told each finding before anything of
    it, or after it, is given; it may raise, to stop the text there.
    """

    __slots__ = ("_detectors", "_note", "_replace", "_start", "_text")

    def __init__(
        self,
        detectors: Sequence[Detector],
        replace: Replace | None = label,
        note: Callable[[Finding], None] = lambda finding: None,
    ) -> None:
        self._detectors = detectors
        self._replace = replace
        self._note = note
        self._text = ""  # what waits, behind some of what has gone out
        self._start = 0

    def feed(self, piece: str) -> str:
        self._text += piece
        text, start = self._text, self._start
        cut = len(text)
        for detector in self._detectors:
            cut = min(cut, detector.tail(text, start))
        return self._release(cut) if cut > start else ""

    def finish(self) -> str:
        return self._release(len(self._text), at_end=True)

    @property
    def held(self) -> int:
        """Characters that wait."""
        return len(self._text) - self._start

    def _release(self, cut: int, *, at_end: bool = False) -> str:
        text, place = self._text, self._start
        parts: list[str] = []
        for finding in findings(text, self._detectors, place):
            if finding.start >= cut and not at_end:
                break
            if finding.end > cut:  # it goes on in what waits, which is settled for it, but not for its neighbours
                cut = finding.start
                break
            self._note(finding)
            parts.append(text[place : finding.start])
            written = text[finding.start : finding.end]
            parts.append(written if self._replace is None else self._replace(finding, written))
            place = finding.end
        parts.append(text[place:cut])
        kept = max(0, cut - 2 * CONTEXT)  # what is looked back at, and what stands before that
        self._text, self._start = text[kept:], cut - kept
        return "".join(parts)
