"""Case by case: what was asked, what was answered then and now, and how each metric stood. For reports and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lockgate.evals.model import Case, Scorecard, score_key
from lockgate.results import RunResult

Found = Mapping[tuple[str, int], RunResult]
Scores = Mapping[tuple[str, int, str], tuple[float | None, str, str]]


class TrialView(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: the run, and by metric ``(value, status, reason)``."""

    trial: int
    result: RunResult
    scores: dict[str, tuple[float | None, str, str]] = msgspec.field(default_factory=dict)


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """One case with its trials, and those of the baseline where there was one."""

    case: Case
    trials: list[TrialView]
    baseline: list[TrialView] = msgspec.field(default_factory=list)
    marks: list[str] = msgspec.field(default_factory=list)  # failed | broken | fixed | flaky | missing


def view(
    card: Scorecard,
    case: Case,
    results: Found,
    scores: Scores,
    digests: Mapping[str, str],
    before: tuple[Found, Scores] | None = None,
) -> CaseView:
    """What is stored of one case; ``digests`` is metric name → what its scores are kept under."""
    trials = _trials(case, results, scores, digests)
    marks = [
        name
        for name, ids in (
            ("broken", {change.case_id for change in card.broken}),
            ("fixed", {change.case_id for change in card.fixed}),
            ("flaky", {*card.flaky, *(one.case_id for one in card.flaky_cases)}),
        )
        if case.id in ids
    ]
    if not trials:
        marks.append("missing")
    elif failing(card, trials):
        marks.insert(0, "failed")
    return CaseView(case=case, trials=trials, baseline=_trials(case, *before, digests) if before else [], marks=marks)


def failing(card: Scorecard, trials: Sequence[TrialView]) -> list[str]:
    """Blocking metrics whose mean on this case misses the wanted value, and failed runs."""
    found = [f"run {one.result.status}: {one.result.error_type}" for one in trials if one.result.status == "failed"][:1]
    for metric in card.metrics:
        values = [one.scores[metric.name][0] for one in trials if metric.name in one.scores]
        known = [value for value in values if value is not None]
        if not metric.blocking or not known or metric.name == "error_rate":
            continue
        mean = sum(known) / len(known)
        if (metric.minimum is not None and mean < metric.minimum) or (
            metric.maximum is not None and mean > metric.maximum
        ):
            found.append(metric.name)
    return found


def _trials(case: Case, results: Found, scores: Scores, digests: Mapping[str, str]) -> list[TrialView]:
    keys = {name: score_key(digest, case.expectation_digest) for name, digest in digests.items()}
    numbers = sorted(trial for digest, trial in results if digest == case.digest)
    return [
        TrialView(
            trial=number,
            result=results[case.digest, number],
            scores={
                name: scores[case.digest, number, key]
                for name, key in keys.items()
                if (case.digest, number, key) in scores
            },
        )
        for number in numbers
    ]


def text_of(value: Any) -> str:
    """An input or an answer as people read it."""
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return "\n".join(
            f"{one.get('role', '')}: {text_of(one.get('content'))}"
            for one in value["messages"]
            if isinstance(one, dict)
        )
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
