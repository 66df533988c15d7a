"""What every scorer is given and gives back, and how it reads an answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from lockgate.evals.model import Case, Status
from lockgate.results import RunResult


class Sample(NamedTuple):
    """One trial to be scored. ``case`` is None in live scoring, where nothing is known of what is expected."""

    case: Case | None
    input: Any
    result: RunResult

    @property
    def output(self) -> Any:
        """The answer: text, or a JSON value."""
        return self.result.output


class Mark(NamedTuple):
    """A scorer's word on a sample: a value, or None with the reason."""

    value: float | None
    reason: str = ""
    status: Status = "scored"


Scorer = Callable[[Sample], Mark | Awaitable[Mark]]
"""Scores one sample. May raise: that counts as the worst value, with the error as its reason."""


def skip(reason: str) -> Mark:
    """The metric does not apply to this sample."""
    return Mark(None, reason, "skipped")


NO_EXPECTED = skip("the case has no expected_output")


def as_text(value: Any) -> str:
    """A JSON value as text; text as it is."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def as_json(value: Any) -> Any:
    """The JSON value in an answer: as it is, or parsed from text, also from inside a code fence.

    Raises ``ValueError`` when there is none.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("```"):
        text = text.removeprefix("```").removeprefix("json").strip().removesuffix("```")
    return _DECODER.decode(text)


def normal(text: str) -> str:
    """Without differences of case and white space."""
    return " ".join(text.casefold().split())


def input_text(value: Any) -> str:
    """All text of an input: a string, or ``{"messages": [{"role", "content"}]}``."""
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        parts = [message.get("content") for message in value["messages"] if isinstance(message, dict)]
        return "\n".join(as_text(part) for part in parts if part is not None)
    return as_text(value)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made anew for each answer it would take longer than decoding
