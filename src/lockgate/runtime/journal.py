"""The ordered record of what a run did, and how a replayed run is answered from it. Pure.

A run acts only through steps, one after another. Replaying it asks for the same steps again: each is answered
from the record, as long as it asks for the same thing. A run that asks for something else has diverged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lockgate.errors import Diverged
from lockgate.runtime.model import Step, StepKind
from lockgate.tools.contracts import hash_of


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it is asked for."""

    kind: StepKind
    name: str
    request: Any


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """The first step at which a replay and its record part. ``expected`` is None where the record has no more steps,
    ``got`` where the replay asks for none. ``message`` says it in words."""

    seq: int
    expected: Asked | None
    got: Asked | None
    message: str


class Journal:
    """``recorded`` answers first; then steps are new.

    ``sealed``: nothing may be new (an exact replay). ``fork``: a run that asks for something else than was recorded
    leaves the record there, and its further steps are new. Either way ``divergence`` tells where.
    """

    def __init__(self, recorded: Sequence[Step] = (), *, sealed: bool = False, fork: bool = False) -> None:
        self.steps: list[Step] = list(recorded)
        self.divergence: Divergence | None = None
        self._recorded = len(self.steps)
        self._next = 0
        self._sealed = sealed
        self._fork = fork

    @property
    def replaying(self) -> bool:
        """Whether recorded steps are left."""
        return self._next < self._recorded

    @property
    def position(self) -> int:
        """How many steps were taken so far."""
        return self._next

    def take(
        self, kind: StepKind, name: str, request: Any, *, effect: str | None = None, now: float = 0.0
    ) -> tuple[Step, bool]:
        """The next step, and whether it is new. Raises :class:`Diverged`, naming both what was recorded and asked."""
        asked = request_hash(kind, name, request)
        if self.replaying:
            step = self.steps[self._next]
            if step.request_hash == asked:
                self._next += 1
                return step, False
            self._part(
                Asked(kind=kind, name=name, request=request),
                f"step {step.seq} was recorded as {kind_and_name(step.kind, step.name)}, and the replay asks for "
                f"{kind_and_name(kind, name)}{_difference(step.request, request)}",
            )
        elif self._sealed or (self._fork and self.divergence is None):
            self._part(
                Asked(kind=kind, name=name, request=request),
                f"the record ends after {self._next} steps, and the replay asks for {kind_and_name(kind, name)}",
            )
        return self._new(kind, name, request, effect, now), True

    def early(self, kind: StepKind, name: str, request: Any, *, cut_off: bool) -> bool:
        """Whether this may be asked for at once with recorded steps that come before it, so that it has to wait.

        It is when the record has it further on; and, where the record was ``cut_off``, when it does not have it.
        """
        if not self.replaying:
            return False
        asked = request_hash(kind, name, request)
        first, *later = (step.request_hash for step in self.steps[self._next :])
        return first != asked and (cut_off or asked in later)

    def diverge(self, step: Step, message: str, *, now: float = 0.0) -> Step:
        """``step``, the last that was answered from the record, would end otherwise now. Raises :class:`Diverged`; a
        fork gives a new step in its place."""
        self._next -= 1
        self._part(Asked(kind=step.kind, name=step.name, request=step.request), message)
        return self._new(step.kind, step.name, step.request, step.effect, now)

    def _new(self, kind: StepKind, name: str, request: Any, effect: str | None, now: float) -> Step:
        step = Step(
            seq=self._next,
            kind=kind,
            name=name,
            request_hash=request_hash(kind, name, request),
            request=request,
            effect=effect,
            started_at=now,
        )
        self.steps.append(step)
        self._next += 1
        return step

    def _part(self, got: Asked, message: str) -> None:
        """Here the replay and the record part. Raises :class:`Diverged`, unless this journal may fork."""
        recorded = self.steps[self._next] if self.replaying else None
        expected = Asked(kind=recorded.kind, name=recorded.name, request=recorded.request) if recorded else None
        self.divergence = Divergence(seq=self._next, expected=expected, got=got, message=message)
        if not self._fork:
            raise Diverged(message)
        del self.steps[self._next :]
        self._recorded = self._next


def request_hash(kind: StepKind, name: str, request: Any) -> str:
    """What tells one request from another: kind, name and content."""
    return hash_of([kind, name, request])


def kind_and_name(kind: str, name: str) -> str:
    """``tool 'read_orders'``."""
    return f"{kind} {name!r}"


def _difference(recorded: Any, asked: Any) -> str:
    """Where two requests first differ, e.g. ``: messages.1.content was 'a', is 'b'``."""
    found = _first_difference(recorded, asked, "")
    if found is None:
        return ""
    path, was, now = found
    return f": {path or 'the request'} was {_short(was)}, is {_short(now)}"


def _first_difference(was: Any, now: Any, path: str) -> tuple[str, Any, Any] | None:
    prefix = f"{path}." if path else ""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            if found := _first_difference(was.get(key), now.get(key), f"{prefix}{key}"):
                return found
        return None
    if isinstance(was, list) and isinstance(now, list):
        for index in range(max(len(was), len(now))):
            before = was[index] if index < len(was) else None
            after = now[index] if index < len(now) else None
            if found := _first_difference(before, after, f"{prefix}{index}"):
                return found
        return None
    return None if was == now else (path, was, now)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
