"""Answers in the queue, and grades."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lockgate.evals.model import Case
from lockgate.results import RunResult

Source = Literal["trial", "run"]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is shown, and a judge is asked about."""

    case: Case
    result: RunResult


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that waits for grades. The judge's own is not part of it: nobody should be told beforehand."""

    id: str
    agent: str
    metric: str
    answer: str  # digest of input, answer and what it is held against
    question: str
    sample: Shown
    source: Source
    stratum: str
    weight: float
    wanted: int  # grades, each by another person
    created_at: float


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What one person said of one answer. ``value`` is None where they cannot tell."""

    item_id: str
    annotator: str
    value: float | None
    note: str = ""
    created_at: float = 0.0


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How far one metric of one agent is."""

    agent: str
    metric: str
    answers: int
    graded: int  # by as many people as wanted
    grades: int
    annotators: list[str]
    doubly: int
    agreement: float | None
    kappa: float | None  # between people


def shown_fields(case: Case) -> dict[str, Any]:
    """What of a case an answer is held against, as a line of labels has it."""
    fields = {"expected_output": case.expected_output, "contexts": case.contexts, "metadata": case.metadata or None}
    return {name: value for name, value in fields.items() if value is not None}
