"""Golden cases as tests: each case of an agent's golden set runs once, and each blocking threshold is an assertion."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lockgate.errors import InputError
from lockgate.evals.model import Case, Metric
from lockgate.results import RunResult

if TYPE_CHECKING:
    from lockgate.evals.scorers import Mark
    from lockgate.testing.agents import TestedAgent


class GoldenCase:
    """One case of a golden set in a test: :meth:`check` runs the agent on it and asserts what its file promises."""

    def __init__(self, agent: str, case: Case, metrics: tuple[Metric, ...], root: Path) -> None:
        self.agent = agent
        self.case = case
        self._metrics = metrics
        self._root = root

    def check(self, agent: TestedAgent) -> RunResult:
        """Run the case, and fail the test where a metric misses its threshold on it. Judged metrics are left to
        ``lockgate eval``; a case that nothing could be said of fails too."""
        from lockgate.evals.scorers import SCORERS, Mark, Sample
        from lockgate.evals.scorers.making import failed_score, make_scorer, to_score

        result = agent.run(self.case.input, fixtures=self.case.metadata.get("fixtures", ()))
        if result.status not in ("completed", "suspended"):
            pytest.fail(f"case {self.case.id!r} failed: {result.error_type}: {result.error}", pytrace=False)
        missed: list[str] = []
        said = 0
        for metric in self._metrics:
            kind = SCORERS[metric.scorer]
            if kind.runs == "judge" or kind.family == "peer":
                continue
            try:
                mark: Any = make_scorer(metric, self._root)(Sample(self.case, self.case.input, result))
                score = to_score(metric, mark if isinstance(mark, Mark) else _awaited(mark))
            except Exception as failure:  # a scorer may raise anything: that is a failed assertion
                score = failed_score(metric, failure)
            if score.status == "skipped":
                continue
            said += 1
            low, high = metric.minimum, metric.maximum
            why = f": {score.reason}" if score.reason else ""
            if score.status != "scored" or score.value is None:
                missed.append(f"{metric.name}: {score.reason}")
            elif low is not None and score.value < low:
                missed.append(f"{metric.name} is {score.value:g}, below {low:g}{why}")
            elif high is not None and score.value > high:
                missed.append(f"{metric.name} is {score.value:g}, above {high:g}{why}")
        if missed:
            pytest.fail(
                f"case {self.case.id!r}, answer {result.deliverable[:200]!r}: " + "; ".join(missed), pytrace=False
            )
        if not said:
            pytest.fail(f"case {self.case.id!r}: no metric could be scored without a judge", pytrace=False)
        return result


def _awaited(mark: Coroutine[Any, Any, Mark]) -> Mark:
    """The mark of a scorer that waits for something, whether or not the test has an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, mark).result()


def golden_cases(root: Path, agent: str) -> list[GoldenCase]:
    """The cases of the golden set that an agent file names. Raises :class:`InputError`."""
    from lockgate.evals.golden import read_cases
    from lockgate.evals.rubric import parse_rubric
    from lockgate.project.yamlfile import read_yaml

    data = read_yaml(root / agent, shown_as=agent).data
    evals = (data.get("agent") or {}).get("evals") if isinstance(data, dict) else None
    rubric = parse_rubric(evals or {}, root, where=agent)
    if rubric.dataset is None:
        raise InputError("the agent names no golden set", path=agent, remedy="add evals.dataset to its file")
    metrics = tuple(
        metric
        for metric in rubric.metrics
        if metric.blocking and (metric.minimum is not None or metric.maximum is not None)
    )
    cases = read_cases(root / rubric.dataset, shown_as=rubric.dataset)
    return [GoldenCase(agent, case, metrics, root) for case in cases]
