"""Cases, scores, rubrics, scorecards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from lockgate.results import RunResult

Verdict = Literal["pass", "fail", "inconclusive"]


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a golden set: an input and what is expected of the agent."""

    id: str
    input: Any
    expected_output: Any = None
    expected_tools: list[Any] | None = None
    contexts: list[str] | None = None
    reference_contexts: list[str] | None = None
    must_not: list[str] | None = None
    tags: list[str] = msgspec.field(default_factory=list)
    cluster: str | None = None
    split: str | None = None
    weight: float = 1.0
    labels: dict[str, Any] = msgspec.field(default_factory=dict)
    source_run: str | None = None
    owner: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


Subject = Callable[[Case, int], Awaitable[RunResult]]
"""The thing under test: runs one case once. The second argument is the trial's number, from 0."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on one trial: ``value`` in 0..1 (USD, seconds or counts for operational metrics),
    or None with the ``reason`` it was skipped."""

    metric: str
    value: float | None
    reason: str = ""
