"""Which runs are worth a reviewer's look, and what becomes of one as a case. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lockgate.evals.model import Case
from lockgate.improve.model import Candidate, Finding, Reason, RunFacts

BUDGET_STOPS = frozenset(
    {
        "llm_calls_exceeded",
        "tool_calls_exceeded",
        "tokens_exceeded",
        "time_exceeded",
        "cost_exceeded",
        "iterations_exceeded",
        "loop_detected",
        "depth_exceeded",
        "budget_exceeded",
    }
)
"""Error types that say a limit ended the run."""

NOT_THE_AGENTS = frozenset(
    {"cancelled", "host_lost", "model_unavailable", "rate_limited", "shadow_unsupported", "unscored"}
)
"""Error types that say nothing of the agent: the same input would do as well tomorrow. They never become candidates."""

DEFAULT_FLOOR = 0.5
"""Live scores (0..1) below this are low where the agent's own thresholds do not name the metric."""

MOST_OF_A_ROLLOUT = 5
"""Runs taken from one rollout that was rolled back."""


def signature(agent: str, run_input: Any) -> str:
    """One digest for one input of one agent, so that a failure seen a hundred times is one candidate.

    White space does not count, and a lone user message is the same as its text.
    """
    told = msgspec.json.encode([agent, _normal(run_input)], order="sorted")
    return "sha256:" + hashlib.sha256(told).hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        messages = value.get("messages")
        if isinstance(messages, list) and len(messages) == 1 and len(value) == 1:
            match messages[0]:
                case {"role": "user", "content": str(content)}:
                    return _normal(content)
        return {str(key): _normal(item) for key, item in value.items()}
    return [_normal(item) for item in value] if isinstance(value, list) else value


def ended(run: RunFacts) -> Finding | None:
    """A run that failed by its own doing, or was stopped by its limits."""
    if run.status != "failed" or run.error_type in NOT_THE_AGENTS:
        return None
    cause = run.error_type or "unknown"
    return _finding(run, "budget_stop" if cause in BUDGET_STOPS else "error", cause, run.error or cause)


def scored(run: RunFacts, metric: str, score: float | None, why: str, floors: Mapping[str, float]) -> Finding | None:
    """A live score below the agent's threshold for the metric."""
    floor = floors.get(metric, DEFAULT_FLOOR)
    if score is None or score >= floor:
        return None
    return _finding(run, "low_score", metric, f"{score:.2f} is below {floor:.2f}" + (f": {why}" if why else ""))


def refused(run: RunFacts, tool: str, why: str, who: str) -> Finding:
    """A person said no to a tool call."""
    return _finding(run, "rejected_approval", tool, f"rejected by {who}" + (f": {why}" if why else ""))


def complained(run: RunFacts, rating: int, comment: str) -> Finding | None:
    """Its user was unhappy."""
    return None if rating > 0 else _finding(run, "feedback", "rating", comment or "rated down, without a comment")


def flagged(run: RunFacts, who: str, note: str) -> Finding:
    """Somebody wants it looked at."""
    return _finding(run, "flag", who, note or "flagged, without a note")


def rolled_back(runs: Iterable[RunFacts], rollout_id: str, why: str) -> list[Finding]:
    """The runs of the candidate's side that say most about why it was rolled back, at most five.

    The dearest ones when cost decided, the slowest when latency did, else those that failed.
    """
    own = [run for run in runs if run.arm in ("candidate", "shadow") and run.error_type not in NOT_THE_AGENTS]
    lowered = why.lower()
    if "cost" in lowered:
        chosen = sorted(own, key=lambda run: -run.cost_nano)
    elif "latency" in lowered:
        chosen = sorted(own, key=lambda run: run.started_at - (run.ended_at or run.started_at))
    else:
        chosen = [run for run in own if run.status == "failed"]
    found: dict[str, Finding] = {}
    for run in chosen:
        if len(found) == MOST_OF_A_ROLLOUT:
            break
        finding = _finding(run, "rollback", rollout_id, why or "rolled back")
        found.setdefault(finding.signature, finding)
    return list(found.values())


def floors(evals: Mapping[str, Any]) -> dict[str, float]:
    """The least acceptable score by metric, from the ``evals`` block of an agent's settings."""
    rubric = evals.get("rubric")
    rules: dict[str, Any] = {}
    if isinstance(rubric, Mapping):
        rules.update(rubric.get("dimensions") or {})
    rules.update(evals.get("thresholds") or {})
    found = {}
    for name, rule in rules.items():
        bound = rule if not isinstance(rule, Mapping) else rule.get("min", rule.get("threshold"))
        if isinstance(bound, (int, float)) and not isinstance(bound, bool) and 0 <= bound <= 1:
            metric = rule.get("metric") if isinstance(rule, Mapping) else None
            found[metric or name] = float(bound)
    return found


def to_case(
    candidate: Candidate,
    run: RunFacts,
    *,
    expected_output: Any = None,
    expected_tools: Sequence[str] = (),
    must_not: Sequence[str] = (),
    tags: Sequence[str] = (),
    cluster: str | None = None,
    weight: float = 1.0,
    case_id: str | None = None,
) -> Case:
    """The candidate as a case. Failures of one cause share a cluster, so the gate does not take each for news."""
    leading = candidate.leading
    return Case(
        id=case_id or f"{candidate.agent}-{leading.signature.removeprefix('sha256:')[:10]}",
        input=run.input,
        expected_output=expected_output,
        expected_tools=list(expected_tools) or None,
        must_not=list(must_not) or None,
        tags=list(dict.fromkeys(["regression", *candidate.reasons, *tags])),
        cluster=cluster or f"{leading.reason}:{leading.cause}",
        weight=weight,
        source_run=run.id,
        metadata={"environment": run.environment, "effective_digest": run.effective_digest, "found": leading.detail},
    )


def case_weight(share: float, golden: Iterable[Case]) -> float:
    """What a mined case weighs in traffic-weighted means: its share of traffic, times what the cases that stand
    for ordinary traffic weigh together. At most 1: a failure never outweighs an ordinary case."""
    ordinary = sum(case.weight for case in golden if case.source_run is None)
    return round(min(1.0, max(0.001, share * (ordinary or 1.0))), 3)


def _finding(run: RunFacts, reason: Reason, cause: str, detail: str) -> Finding:
    return Finding(
        run_id=run.id,
        agent=run.agent,
        environment=run.environment,
        signature=signature(run.agent, run.input),
        reason=reason,
        cause=cause,
        detail=detail,
    )
