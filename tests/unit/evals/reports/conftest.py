"""Scorecards to write reports of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lockgate.evals.model import Interval, MetricCard, Scorecard


def metric(name: str, **fields: Any) -> MetricCard:
    given: dict[str, Any] = {"scorer": name, "unit": "score", "direction": "higher", "blocking": True}
    given |= {"verdict": "pass", "reason": "", "mean": 0.9, "interval": Interval(0.8, 0.95), "minimum": 0.8}
    return MetricCard(name=name, **(given | fields))


def card(**fields: Any) -> Scorecard:
    given: dict[str, Any] = {"id": "eval_1", "agent": "triage", "label": "triage@2 (abc)", "environment": "prod"}
    given |= {"behaviour_digest": "sha256:b", "effective_digest": "sha256:e", "dataset": "g.jsonl"}
    given |= {"dataset_digest": "sha256:d", "rubric_digest": "sha256:r", "cases": 60, "trials": 3, "verdict": "pass"}
    given |= {"reasons": [], "metrics": [metric("exact_match")]}
    return Scorecard(**(given | fields))


@pytest.fixture
def make_metric() -> Callable[..., MetricCard]:
    """A metric that passed, but for the fields given."""
    return metric


@pytest.fixture
def make_card() -> Callable[..., Scorecard]:
    """A scorecard that passed, but for the fields given."""
    return card
