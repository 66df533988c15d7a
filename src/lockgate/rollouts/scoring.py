"""Live scoring: the rubric's metrics that need no expected answer, on runs as they complete."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from lockgate.clock import Clock
from lockgate.errors import LockgateError
from lockgate.evals.model import Metric
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.scorers import Scorer
from lockgate.evals.scorers.making import live_metrics, make_scorer, score_run
from lockgate.results import RunResult, ToolUse, Usage
from lockgate.rollouts import store
from lockgate.rollouts.model import MetricSpec
from lockgate.storage.engine import Database
from lockgate.storage.schema import run_scores, run_steps, runs
from lockgate.storage.upsert import insert_into
from lockgate.versions.model import AgentSettings

_log = logging.getLogger(__name__)

LOOK_BACK = 3600.0
"""Seconds a completed run may wait for its score; an older one stays unscored."""
BATCH = 200
"""Runs scored in one tick."""


def quality_metrics(evals: Mapping[str, Any], root: Path) -> tuple[Metric, ...]:
    """The metrics of an ``evals`` block that score live runs in 0..1. Paths in it are from ``root``."""
    if not evals:
        return ()
    return tuple(metric for metric in live_metrics(parse_rubric(evals, root)) if metric.unit == "score")


def gated_specs(evals: Mapping[str, Any], gates: Mapping[str, Any], root: Path) -> list[MetricSpec]:
    """What a rollout watches of them: the blocking ones, and those its own gates name."""
    return [
        MetricSpec(
            name=metric.name,
            kind="quality",
            margin=0.05 if metric.margin is None else metric.margin,
            higher_is_better=metric.direction == "higher",
        )
        for metric in quality_metrics(evals, root)
        if metric.blocking or metric.name in gates
    ]


class LiveScoring:
    """Scores what completed since the last tick. Level-triggered: it looks for runs that lack a score."""

    def __init__(self, control: Database, clock: Clock, root: Path) -> None:
        self._control = control
        self._clock = clock
        self._root = root
        self._scorers: dict[bytes, list[tuple[Metric, Scorer]]] = {}

    def tick(self) -> int:
        """Score at most :data:`BATCH` runs of each agent; the number scored."""
        now = self._clock()
        with self._control.read() as connection:
            settings = {(one.environment, one.agent): one.settings for one in store.list_deployments(connection)}
            for rollout in store.list_rollouts(connection, live=True, limit=10_000):
                settings[rollout.environment, rollout.agent] = rollout.settings  # one rubric for both arms
        return sum(self._score(*place, scorers, now) for place, scorers in self._all_scorers(settings).items())

    def _all_scorers(
        self, settings: Mapping[tuple[str, str], AgentSettings]
    ) -> dict[tuple[str, str], list[tuple[Metric, Scorer]]]:
        found = {}
        for place, mine in settings.items():
            key = msgspec.json.encode(mine.evals, order="sorted")
            if key not in self._scorers:
                self._scorers[key] = self._make(place[1], mine)
            if self._scorers[key]:
                found[place] = self._scorers[key]
        return found

    def _make(self, agent: str, settings: AgentSettings) -> list[tuple[Metric, Scorer]]:
        try:
            metrics = quality_metrics(settings.evals, self._root)
            return [(metric, make_scorer(metric, self._root)) for metric in metrics]
        except LockgateError as broken:
            _log.error("runs of %s are not scored: %s", agent, broken)
            return []

    def _score(self, environment: str, agent: str, scorers: list[tuple[Metric, Scorer]], now: float) -> int:
        names = [metric.name for metric, _ in scorers]
        done = (
            select(func.count())
            .where(run_scores.c.run_id == runs.c.id, run_scores.c.metric.in_(names))
            .scalar_subquery()
        )
        with self._control.read() as connection:
            waiting = connection.execute(
                select(runs)
                .where(
                    runs.c.environment == environment,
                    runs.c.agent == agent,
                    runs.c.started_at >= now - LOOK_BACK,
                    runs.c.status == "completed",
                    done < len(names),
                )
                .order_by(runs.c.started_at)
                .limit(BATCH)
            ).all()
            results = [(row, result_of(connection, row)) for row in waiting]
        if not results:
            return 0
        scores = [
            {"run_id": row.id, "metric": score.metric, "score": score.value, "reason": score.reason, "scored_at": now}
            for row, result in results
            for score in (score_run(metric, None, row.input, result, scorer=scorer) for metric, scorer in scorers)
        ]
        with self._control.write() as connection:
            connection.execute(insert_into(connection, run_scores).on_conflict_do_nothing(), scores)
        return len(results)


def result_of(connection: Connection, row: Row[Any]) -> RunResult:
    """A stored run as the result its caller got."""
    steps = connection.execute(
        select(run_steps.c.name, run_steps.c.request, run_steps.c.response, run_steps.c.error)
        .where(run_steps.c.run_id == row.id, run_steps.c.kind == "tool")
        .order_by(run_steps.c.seq)
    )
    return RunResult(
        status=row.status,
        output=row.output,
        tools_used=[
            ToolUse(
                name=step.name,
                arguments=step.request if isinstance(step.request, dict) else {},
                result=step.response,
                error=step.error,
            )
            for step in steps
        ],
        usage=Usage(input_tokens=row.input_tokens, output_tokens=row.output_tokens),
        cost_nano=row.cost_nano,
        seconds=(row.ended_at or row.started_at) - row.started_at,
        model_calls=row.model_calls,
        iterations=row.iterations,
        run_id=row.id,
        trace_id=row.trace_id,
        error_type=row.error_type,
        error=row.error,
    )
