"""Scores one trial: every scorer ends in a score, also one that raises, hangs or gives no number."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from lockgate.errors import LockgateError
from lockgate.evals.model import Metric, Rubric, Score
from lockgate.evals.running.watchdog import Stuck
from lockgate.evals.scorers import SCORERS, Mark, Sample, Scorer
from lockgate.evals.scorers.making import failed_score, to_score

SCORER_SECONDS = 30.0
"""Seconds a scorer of the project's own may take."""


class Scoring(NamedTuple):
    """A metric ready for use. ``digest`` names everything that decides its value but the case."""

    metric: Metric
    scorer: Scorer
    digest: str


def prepare(rubric: Rubric, make: Callable[[Metric], Scorer]) -> list[Scoring]:
    """The rubric's metrics with their scorers, which ``make`` gives."""
    found = []
    for metric in rubric.metrics:
        judge = rubric.judge if SCORERS[metric.scorer].runs == "judge" else None
        decisive = [metric.scorer, metric.options, metric.version, msgspec.to_builtins(judge), rubric.sources]
        digest = hashlib.sha256(msgspec.json.encode(decisive, order="sorted")).hexdigest()
        found.append(Scoring(metric, make(metric), digest))
    return found


async def score_trial(scoring: Scoring, sample: Sample, *, failed: bool, timeout: float) -> Score:
    """One metric on one trial, whatever its scorer does. A judge has ``timeout`` seconds to answer."""
    metric = scoring.metric
    kind = SCORERS[metric.scorer]
    if failed and kind.unit == "score" and sample.result.error_type not in kind.endures:
        reason = sample.result.error or "the run failed"
        return Score(metric=metric.name, value=metric.worst, reason=reason, status="error")
    try:
        if kind.runs == "thread":
            mark = await asyncio.wait_for(_in_thread(scoring.scorer, sample), SCORER_SECONDS)
        else:
            answer = scoring.scorer(sample)
            mark = answer if isinstance(answer, Mark) else await asyncio.wait_for(answer, timeout)
    except LockgateError as failure:
        if kind.asks:  # the judge's trouble is not the agent's
            return Score(metric=metric.name, value=None, reason=failure.message, status="unscored")
        return failed_score(metric, failure)
    except TimeoutError as failure:
        if kind.asks:
            reason = "the judge did not answer" if kind.runs == "judge" else "no embeddings came"
            return Score(metric=metric.name, value=None, reason=reason, status="unscored")
        if str(failure):  # the scorer's own
            return failed_score(metric, failure)
        given = SCORER_SECONDS if kind.runs == "thread" else timeout
        return _without_end(metric, f"the scorer gave nothing in {given:g} s")
    except Stuck:  # an inline scorer that computes without end
        return _without_end(metric, "the scorer computed without end")
    except Exception as failure:  # a scorer may raise anything: it is that trial's outcome
        return failed_score(metric, failure)
    return to_score(metric, mark)


def _without_end(metric: Metric, reason: str) -> Score:
    return Score(metric=metric.name, value=metric.worst, reason=reason, status="error")


async def _in_thread(scorer: Scorer, sample: Sample) -> Mark:
    """Call a scorer of the project's own in a daemon thread, so that one that hangs cannot hold up the process' end."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Mark] = loop.create_future()

    def settle(mark: Mark | None, failure: BaseException | None) -> None:
        if answered.done():
            return
        if failure is not None:
            answered.set_exception(failure)
        elif mark is not None:
            answered.set_result(mark)

    def call() -> None:
        mark: Mark | None = None
        failure: BaseException | None = None
        try:
            answer = scorer(sample)
            mark = answer if isinstance(answer, Mark) else Mark(None, "the scorer gave no mark", "error")
        except Exception as raised:  # reported as this trial's score
            failure = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, mark, failure)

    threading.Thread(target=call, name="eval-scorer", daemon=True).start()
    return await answered
