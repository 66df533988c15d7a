"""What runs cost and how long they took, held against bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lockgate.evals.model import Quantiles, Scorecard
from lockgate.evals.operations import Ran, cost_bounds, latency_bounds, mean_cost


def card(**fields: Any) -> Scorecard:
    given: dict[str, Any] = {"id": "eval_1", "agent": "a", "label": "a@1", "environment": "prod", "dataset": "g.jsonl"}
    given |= {f"{name}_digest": "sha256:0" for name in ("behaviour", "effective", "dataset", "rubric")}
    given |= {"cases": 4, "trials": 1, "verdict": "fail", "reasons": [], "metrics": [], "run_usd": 0.0}
    return Scorecard(**(given | {"latency": Quantiles(p50=1, p90=1, p95=1, p99=1, highest=1)} | fields))


def test_trials_that_did_not_run_were_not_free() -> None:
    costs = np.array([[0.02, 0.04], [np.nan, np.nan]])
    assert mean_cost(Ran(costs, costs)) == pytest.approx(0.03)
    assert mean_cost(Ran(costs[1:], costs[1:])) is None


def test_where_all_runs_failed_no_bound_is_kept() -> None:
    failed = card(failed_trials=4)
    bounds = [
        *cost_bounds(failed, a_run=1.0, increase=None, by_tag={}, every_tag=False),
        *latency_bounds(failed, {"p95": 9.0}, None),
    ]
    assert [(one.verdict, one.text) for one in bounds] == [("inconclusive", "all runs failed")] * 2


def test_what_a_run_of_the_baseline_cost_decides_a_relative_bound() -> None:
    (bound,) = cost_bounds(
        card(run_usd=0.03, baseline_run_usd=0.02), a_run=None, increase=0.2, by_tag={}, every_tag=False
    )
    assert (bound.verdict, bound.limit) == ("fail", pytest.approx(0.024))
