"""Scorers: what turns one trial into one number. Each is a small file with a closure behind one protocol.

A new one is a function ``(options…) -> Scorer`` in a file of its own and a row in :data:`SCORERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from lockgate.evals.model import Direction, Unit
from lockgate.evals.scorers import judge, operational
from lockgate.evals.scorers.contains import contains
from lockgate.evals.scorers.exact import exact_match
from lockgate.evals.scorers.fields import field_match
from lockgate.evals.scorers.grounded import grounded_fields
from lockgate.evals.scorers.must_not import must_not
from lockgate.evals.scorers.numeric import numeric_match
from lockgate.evals.scorers.python import python
from lockgate.evals.scorers.refusal import refusal_match
from lockgate.evals.scorers.regex import regex
from lockgate.evals.scorers.sample import Mark, Sample, Scorer
from lockgate.evals.scorers.schema import schema_valid
from lockgate.evals.scorers.tools import tool_call_accuracy, tool_call_f1

__all__ = ["ALIASES", "SCORERS", "Kind", "Mark", "Sample", "Scorer"]


class Kind(NamedTuple):
    """A scorer's maker and what its values mean. ``needs_case``: it cannot score live runs."""

    make: Callable[..., Scorer]
    needs_case: bool = True
    unit: Unit = "score"
    direction: Direction = "higher"
    runs: Literal["inline", "thread", "judge"] = "inline"


def _operational(make: Callable[..., Scorer], unit: Unit) -> Kind:
    return Kind(make, needs_case=False, unit=unit, direction="lower")


SCORERS: dict[str, Kind] = {
    "exact_match": Kind(exact_match),
    "contains": Kind(contains),
    "regex": Kind(regex, needs_case=False),
    "field_match": Kind(field_match),
    "schema_valid": Kind(schema_valid, needs_case=False),
    "numeric_match": Kind(numeric_match),
    "tool_call_accuracy": Kind(tool_call_accuracy),
    "tool_call_f1": Kind(tool_call_f1),
    "must_not": Kind(must_not, needs_case=False),
    "grounded_fields": Kind(grounded_fields, needs_case=False),
    "refusal_match": Kind(refusal_match),
    "python": Kind(python, runs="thread"),
    "faithfulness": Kind(judge.faithfulness, needs_case=False, runs="judge"),
    "answer_relevance": Kind(judge.answer_relevance, needs_case=False, runs="judge"),
    "answer_correctness": Kind(judge.answer_correctness, runs="judge"),
    "judge": Kind(judge.criterion, needs_case=False, runs="judge"),
    "cost_usd": _operational(operational.cost_usd, "usd"),
    "latency_seconds": _operational(operational.latency_seconds, "seconds"),
    "tokens": _operational(operational.tokens, "tokens"),
    "output_tokens": _operational(operational.output_tokens, "tokens"),
    "iterations": _operational(operational.iterations, "count"),
    "model_calls": _operational(operational.model_calls, "count"),
    "tool_calls": _operational(operational.tool_calls, "count"),
    "error_rate": _operational(operational.error_rate, "rate"),
}
"""Every scorer by the name a rubric gives it."""

ALIASES = {
    "exact": "exact_match",
    "json_field": "field_match",
    "decision_match": "field_match.decision",
    "json_schema": "schema_valid",
    "answer_relevancy": "answer_relevance",
    "latency": "latency_seconds",
    "cost": "cost_usd",
}
"""Other names of the same scorers, as tools of the field have them."""
