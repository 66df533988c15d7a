"""Candidates: production failures that wait to become cases of the golden set."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Reason = Literal["error", "budget_stop", "low_score", "rejected_approval", "rollback", "feedback", "flag"]
"""Why a run is worth a look, the most telling first:
it failed · it was stopped by its own limits · a live score is below the threshold · a person refused its tool call ·
it is one of the runs that brought a rollout down · its user was unhappy · somebody flagged it."""

Status = Literal["open", "promoted", "rejected"]


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What triage looks at of one run. ``ended_at`` and ``started_at`` are Unix seconds."""

    id: str
    agent: str
    environment: str
    arm: str
    status: str
    input: Any
    output: Any = None
    error_type: str | None = None
    error: str | None = None
    cost_nano: int = 0
    rollout_id: str | None = None
    effective_digest: str = ""
    started_at: float = 0.0
    ended_at: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason to look at one run. ``cause`` groups failures of one kind (an error type, a metric, a tool)."""

    run_id: str
    agent: str
    environment: str
    signature: str
    reason: Reason
    cause: str
    detail: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """The findings about one input of one agent, newest last: what a reviewer decides on.

    ``weight`` is the share of the agent's recent runs that it stands for (0..1), ``runs`` how many those were.
    """

    id: str
    agent: str
    status: Status
    findings: list[Finding]
    runs: int
    weight: float
    created_at: float
    case_id: str | None = None
    decided_at: float | None = None
    decided_by: str | None = None

    @property
    def reasons(self) -> list[Reason]:
        """Each reason once, the most telling first."""
        order: tuple[Reason, ...] = Reason.__args__  # type: ignore[attr-defined]
        return sorted({finding.reason for finding in self.findings}, key=order.index)

    @property
    def leading(self) -> Finding:
        """The newest finding of the most telling reason."""
        return [finding for finding in self.findings if finding.reason == self.reasons[0]][-1]


class FeedbackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a user said of a run. ``rating`` is 1 or -1."""

    id: str
    run_id: str
    rating: int
    comment: str
    author: str
    created_at: float
