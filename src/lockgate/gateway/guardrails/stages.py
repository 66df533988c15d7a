"""A text on its way through the checks: piece by piece or as a whole, with the same result. Pure but for the clock that
measures what each check takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from lockgate.errors import Blocked, Refused
from lockgate.gateway.guardrails import injection
from lockgate.gateway.guardrails.model import Finding, Outcome, Side
from lockgate.gateway.guardrails.policy import Guard, Policy
from lockgate.gateway.guardrails.windows import Window, label, redacted

if TYPE_CHECKING:
    from lockgate.gateway.guardrails.schemas import Asked

MAX_WHOLE = 4 * 1024 * 1024
"""Characters of a text that are held back by a check which needs all of it."""
DEEPEST = 250
"""Levels of JSON that is looked into: what hides below them does not pass."""


class Stage(Protocol):
    """One check on one text."""

    def feed(self, piece: str) -> str: ...

    def finish(self) -> str: ...

    def whole(self, text: str) -> str:
        """A text that is there as a whole: what ``feed`` and ``finish`` give together."""
        ...


def blocked(outcome: Outcome, what: str) -> Blocked:
    """The error of a check that refuses: which, and what kind of thing it found, never the thing."""
    outcome.action = "block"
    side, can = ("the request", "take it out") if outcome.side == "input" else ("the answer", "ask in other words")
    return Blocked(
        f"the guardrail {outcome.guard!r} stopped {side}: {what}",
        guard=outcome.guard,
        side=outcome.side,
        remedy=f"{can}, or ask whoever owns the guardrails",
    )


class Detecting:
    """Detectors of things with a place in the text."""

    def __init__(self, guard: Guard, outcome: Outcome) -> None:
        self._guard = guard
        self._outcome = outcome
        self._passes = guard.action == "flag"
        self._window: Window | None = None

    def _note(self, finding: Finding) -> None:
        outcome = self._outcome
        outcome.count(finding.kind)
        if self._guard.action == "block":
            raise blocked(outcome, f"it holds something of the kind {finding.kind!r}")
        if outcome.action == "allow":
            outcome.action = self._guard.action

    def feed(self, piece: str) -> str:
        if self._window is None:
            replace = label if self._guard.action == "redact" else None
            self._window = Window(self._guard.detectors, replace, self._note)
        out = self._window.feed(piece)
        return piece if self._passes else out

    def finish(self) -> str:
        out = "" if self._window is None else self._window.finish()
        return "" if self._passes else out

    def whole(self, text: str) -> str:
        checked, found = redacted(text, self._guard.detectors)
        for finding in found:
            self._note(finding)
        return checked if self._guard.action == "redact" else text


class Topical:
    """Topics: a rule may take several words, or be lifted by others."""

    def __init__(self, guard: Guard, outcome: Outcome) -> None:
        self._guard = guard
        self._outcome = outcome
        self._rules = {rule.name: rule for rule in guard.rule_list}
        self._words: dict[str, set[str]] = {}
        self._seen = ""
        self._listens = any(rule.unless for rule in guard.rule_list)
        self._window = Window(guard.detectors, self._replace)

    def _replace(self, finding: Finding, written: str) -> str:
        rule = self._rules[finding.kind]
        words = self._words.setdefault(finding.kind, set())
        words.add(written.casefold())
        if len(words) >= rule.least and not any(word.casefold() in self._seen for word in rule.unless):
            self._outcome.count(finding.kind)
            if self._guard.action == "block":
                raise blocked(self._outcome, f"it is about {finding.kind!r}")
            self._outcome.action = "flag"
        return written

    def feed(self, piece: str) -> str:
        if self._listens:
            self._seen += piece.casefold()
        out = self._window.feed(piece)
        return piece if self._guard.action == "flag" else out

    def finish(self) -> str:
        out = self._window.finish()
        return "" if self._guard.action == "flag" else out

    def whole(self, text: str) -> str:
        return self.feed(text) + self.finish()


class Length:
    """At most so many characters."""

    def __init__(self, guard: Guard, outcome: Outcome) -> None:
        self._guard = guard
        self._outcome = outcome
        self._left = guard.characters
        self._over = False

    def feed(self, piece: str) -> str:
        if len(piece) <= self._left:
            self._left -= len(piece)
            return piece
        cut, self._left = piece[: self._left], 0
        if not self._over:
            self._over = True
            self._outcome.count("too_long")
            if self._guard.action == "block":
                raise blocked(self._outcome, f"a text has more than {self._guard.characters} characters")
            self._outcome.action = self._guard.action
        return piece if self._guard.action == "flag" else cut

    def finish(self) -> str:
        return ""

    def whole(self, text: str) -> str:
        return self.feed(text)


class Injected:
    """Marks of an injection, in a whole text."""

    def __init__(self, guard: Guard, outcome: Outcome, *, untrusted: bool = False) -> None:
        self._guard = guard
        self._outcome = outcome
        self._untrusted = untrusted
        self._parts: list[str] = []
        self._size = 0

    def feed(self, piece: str) -> str:
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > MAX_WHOLE:
            raise blocked(self._outcome, f"a text has more than {MAX_WHOLE} characters")
        return piece if self._guard.action == "flag" else ""

    def finish(self) -> str:
        text = "".join(self._parts)
        found = injection.score(text, untrusted=self._untrusted)
        outcome = self._outcome
        outcome.score = max(outcome.score or 0.0, found.value)
        if found.value >= self._guard.threshold:
            for mark in found.marks:
                outcome.count(mark)
            if self._guard.action == "block":
                raise blocked(outcome, f"it looks like a prompt injection ({', '.join(found.marks)})")
            outcome.action = "flag"
        return "" if self._guard.action == "flag" else text

    def whole(self, text: str) -> str:
        return self.feed(text) + self.finish()


def stage(guard: Guard, outcome: Outcome, *, untrusted: bool = False) -> Stage | None:
    """The check for one text; None for those that look at more than a text (a schema)."""
    match guard.guard:
        case "topics":
            return Topical(guard, outcome)
        case "max_length":
            return Length(guard, outcome)
        case "injection":
            return Injected(guard, outcome, untrusted=untrusted)
        case "schema":
            return None
        case _:
            return Detecting(guard, outcome)


def outcomes_of(guards: Sequence[Guard], side: Side) -> list[Outcome]:
    return [Outcome(guard=guard.guard, side=side, action="allow") for guard in guards]


class Chain:
    """A text through all checks of one side, one behind the other."""

    def __init__(self, guards: Sequence[Guard], outcomes: Sequence[Outcome], *, untrusted: bool = False) -> None:
        self._stages: list[tuple[Stage, Outcome]] = []
        for guard, outcome in zip(guards, outcomes, strict=True):
            made = stage(guard, outcome, untrusted=untrusted)
            if made is not None:
                self._stages.append((made, outcome))

    def feed(self, piece: str) -> str:
        return self._through(piece, lambda made, text: made.feed(text))

    def finish(self) -> str:
        return self._through("", lambda made, text: (made.feed(text) if text else "") + made.finish())

    def whole(self, text: str) -> str:
        """A text that is there as a whole."""
        return self._through(text, lambda made, text: made.whole(text))

    def _through(self, text: str, step: Callable[[Stage, str], str]) -> str:
        """Each stage takes what the one before it let out; its time is noted also when it blocks."""
        began = perf_counter_ns()
        for made, outcome in self._stages:
            try:
                text = step(made, text)
            finally:
                ended = perf_counter_ns()
                outcome.nanos += ended - began
                began = ended
        return text


Whole = Callable[[str], str]


def within_json(text: str, whole: Whole) -> str:
    """JSON text (a tool call's arguments) with its strings, keys and numbers checked one by one, as they are meant and
    not as they are escaped. What is no JSON is checked as it stands. Unchanged text stays byte for byte."""
    if not text:
        return text
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        return whole(text)
    checked = within_value(value, whole)
    return text if checked == value else json.dumps(checked, ensure_ascii=False)


def within_value(value: Any, whole: Whole, levels: int = DEEPEST) -> Any:
    """As :func:`within_json`, for a decoded value of at most so many ``levels``."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict | list) and not levels:
        raise _too_deep()
    if isinstance(value, dict):
        return {whole(str(name)): within_value(item, whole, levels - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [within_value(item, whole, levels - 1) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        written = str(value)
        checked = whole(written)
        return value if checked == written else checked
    return value


def _too_deep() -> Refused:
    return Refused(
        f"JSON that is nested more than {DEEPEST} levels deep is not checked, and does not pass",
        remedy="nest it less deep, or ask whoever owns the guardrails",
    )


def check_fit(
    asked: Asked,
    said: str,
    policy: Policy,
    outcomes: Sequence[Outcome],
    again: Callable[[str, str], NoReturn] | None = None,
) -> None:
    """Hold an answer's text against what it is asked to fit, for each guard that wants it. Raises Blocked; for one that
    repairs, ``again`` raises what asks once more, given the text and how it does not fit. None: it cannot be asked."""
    for place, guard in policy.schemas:
        outcome = outcomes[place]
        began = perf_counter_ns()
        problem = asked.problem_of(said)
        outcome.nanos += perf_counter_ns() - began
        if problem is None:
            continue
        outcome.count("schema")
        if guard.repair and again is not None:
            again(said, problem)
        if guard.action == "block":
            raise blocked(outcome, f"it does not fit the schema: {problem[:300]}")
        outcome.action = "flag"
