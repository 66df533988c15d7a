"""Whether a golden set has what its metrics are scored from, before a model is paid for it. Pure.

A metric that finds nothing in any case would only ever be skipped: it would cost, and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockgate.errors import InputError
from lockgate.evals.model import Case, Metric, Rubric
from lockgate.evals.scorers import SCORERS
from lockgate.evals.scorers.sample import Mark, Sample, Scorer
from lockgate.results import RunResult

_HAS: dict[str, Callable[[Case], bool]] = {
    "expected_output": lambda case: case.expected_output is not None,
    "expected_tools": lambda case: case.expected_tools is not None,
    "labels": lambda case: bool(case.labels),
    "metadata": lambda case: bool(case.metadata),
}
_INSTEAD = frozenset({"text", "goal", "forbidden", "calls", "most", "value"})
"""Options with which a metric needs nothing of the case."""


def check_inputs(rubric: Rubric, cases: Sequence[Case], make: Callable[[Metric], Scorer]) -> None:
    """Raises :class:`InputError` naming each blocking metric that no case has the inputs of, and which it lacks.

    ``make`` gives a metric's scorer, for those that score at once: what they skip says what they miss.
    """
    lacking = []
    for metric in rubric.metrics:
        if not metric.blocking or not cases:
            continue
        kind = SCORERS[metric.scorer]
        missing = [need for need, has in _HAS.items() if need in kind.needs and not any(has(case) for case in cases)]
        if _INSTEAD & {name for name, value in metric.options.items() if value is not None}:
            missing = []
        if missing:
            lacking.append(f"{metric.name} needs {' and '.join(missing)}")
        elif kind.needs_case and kind.runs == "inline" and (why := _always_skipped(make(metric), cases)):
            lacking.append(f"{metric.name}: {why}")
    if lacking:
        raise InputError(
            f"none of {len(cases)} cases has what a metric is scored from: {'; '.join(lacking)}",
            remedy="add it to the cases, or let the metric only advise (blocking: false)",
        )


def _always_skipped(scorer: Scorer, cases: Sequence[Case]) -> str:
    """Why a scorer skips every case, whatever the agent answers; empty when it does not."""
    why = ""
    for case in cases:
        try:
            mark = scorer(Sample(case, case.input, RunResult(status="completed", output="")))
        except Exception:  # a scorer may raise what it likes of an empty answer: it does not skip it
            return ""
        if not isinstance(mark, Mark) or mark.status != "skipped":
            return ""
        why = why or mark.reason
    return why
