"""Makes the scorers that a rubric's metrics name, and turns their word into a score."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from lockgate.errors import InputError
from lockgate.evals.model import JudgeSettings, Metric, Rubric, Score
from lockgate.evals.scorers import SCORERS, Kind
from lockgate.evals.scorers.panel import panel_of
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, skip
from lockgate.results import RunResult

if TYPE_CHECKING:
    from lockgate.evals.embeddings import Embed


def embeds_by(metric: Metric) -> str | None:
    """The provider's embedding model that the metric is scored by, ``PROVIDER:MODEL``; None: it asks no provider."""
    if metric.scorer == "embedding_similarity":
        from lockgate.evals.scorers.embedding import LOCAL  # with numpy, which few rubrics need

        named = metric.options.get("model", LOCAL)
        return None if named == LOCAL else named
    return metric.options.get("embeddings") if "embeddings" in SCORERS[metric.scorer].needs else None


def make_scorer(
    metric: Metric,
    root: Path,
    *,
    ask: Any = None,
    judge: JudgeSettings | None = None,
    embed: Callable[[str], Embed] | None = None,
) -> Scorer:
    """The metric's scorer, ready to use. ``ask`` is the judge's model call, for metrics that need one; ``embed`` gives
    a provider's embeddings by its model, for those that are scored by them."""
    kind = SCORERS[metric.scorer]
    options = dict(metric.options)
    if kind.runs == "judge":
        if ask is None and kind.family != "peer":  # whose metrics may find in the case that they need no model
            return lambda sample: skip("no judge was given")
        options |= {"ask": ask, "prompt": judge.prompt if judge else None}
    if metric.scorer in ("embedding_similarity", "final_state"):
        options["root"] = root
    if embed is not None and (named := embeds_by(metric)):
        options["embed"] = embed(named)
    if metric.scorer == "python":
        from lockgate.evals.scorers.python import load_function

        options = {"function": load_function(options.pop("python"), root), "options": options}
    _check_options(metric, kind, options)
    try:
        if kind.runs == "judge" and judge is not None and judge.panel:
            return panel_of(kind.make, options, 1 + len(judge.panel))
        return kind.make(**options)
    except InputError as wrong:
        raise InputError(f"metric {metric.name!r}: {wrong.message}", remedy=wrong.remedy) from None


def live_metrics(rubric: Rubric) -> tuple[Metric, ...]:
    """The metrics that can score a live run, where nothing is known of what is expected, without asking a model."""
    return tuple(
        metric
        for metric in rubric.metrics
        if not SCORERS[metric.scorer].needs_case and SCORERS[metric.scorer].runs == "inline"
    )


def score_run(metric: Metric, case: Any, input: Any, result: RunResult, *, scorer: Scorer | None = None) -> Score:
    """One metric on one run, at once: for live scoring. ``scorer`` is the metric's, made once by :func:`make_scorer`.

    A failed run has the worst value. Metrics that need a judge or a thread are skipped here.
    """
    kind = SCORERS[metric.scorer]
    if kind.runs != "inline":
        return Score(metric=metric.name, value=None, reason=f"{metric.scorer} is not scored live", status="skipped")
    if result.status not in ("completed", "suspended") and metric.worst is not None and kind.unit == "score":
        return Score(metric=metric.name, value=metric.worst, reason=result.error or "the run failed", status="error")
    try:
        mark = (scorer or make_scorer(metric, Path()))(Sample(case, input, result))
    except Exception as failure:  # a scorer may raise anything: that is a score of its own
        return failed_score(metric, failure)
    assert isinstance(mark, Mark)
    return to_score(metric, mark)


def to_score(metric: Metric, mark: Mark) -> Score:
    """A scorer's word as a score; a value that is not a number in the metric's range is an error."""
    value = mark.value
    if value is None:
        return Score(metric=metric.name, value=None, reason=mark.reason, status=mark.status)
    if not math.isfinite(value) or value < 0 or (metric.bounded and value > 1):
        reason = f"the scorer gave {value!r}, which is not {'in 0..1' if metric.bounded else 'a finite amount'}"
        return Score(metric=metric.name, value=metric.worst, reason=reason, status="error")
    return Score(metric=metric.name, value=float(value), reason=mark.reason)


def failed_score(metric: Metric, failure: BaseException) -> Score:
    """The score of a trial whose scorer raised: the worst value, with the error as its reason."""
    reason = f"the scorer raised {type(failure).__name__}: {failure}"[:500]
    return Score(metric=metric.name, value=metric.worst, reason=reason, status="error")


def _check_options(metric: Metric, kind: Kind, options: dict[str, Any]) -> None:
    if kind.family == "peer":
        return  # its own package knows its options, and is asked before the first trial
    hints = get_type_hints(kind.make)
    known = [name for name in hints if name not in ("return", "ask", "prompt", "function", "root", "embed")]
    for name, value in options.items():
        if name not in hints:
            raise InputError(
                f"metric {metric.name!r}: unknown option {name!r}",
                remedy=f"options of {metric.scorer}: {', '.join(known) or 'none'}",
            )
        if name in known:
            try:
                msgspec.convert(value, hints[name])
            except msgspec.ValidationError as wrong:
                raise InputError(
                    f"metric {metric.name!r}: {name} is {value!r}: {wrong}", remedy="correct the option"
                ) from None
    missing = [
        name
        for name, parameter in signature(kind.make).parameters.items()
        if parameter.default is parameter.empty and name not in options
    ]
    if missing:
        raise InputError(
            f"metric {metric.name!r} needs {missing[0]!r}", remedy=f"write {metric.name}: {{{missing[0]}: …}}"
        )
