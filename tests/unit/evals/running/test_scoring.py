"""Every scorer ends in a score."""

from __future__ import annotations

import threading

import pytest

from lockgate.evals.model import Case, Metric
from lockgate.evals.running import scoring
from lockgate.evals.running.scoring import Scoring, score_trial
from lockgate.evals.scorers import Mark, Sample
from lockgate.results import RunResult


async def test_a_scorer_that_never_ends_is_the_worst_value_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SCORER_SECONDS", 0.05)
    over = threading.Event()

    def waits(sample: Sample) -> Mark:
        over.wait(60)
        return Mark(1.0)

    sample = Sample(Case(id="a", input="x"), "x", RunResult(status="completed", output="y"))
    score = await score_trial(Scoring(Metric(name="mine", scorer="python"), waits, ""), sample, failed=False, timeout=1)
    over.set()
    assert (score.value, score.status, score.reason) == (0.0, "error", "the scorer gave nothing in 0.05 s")
