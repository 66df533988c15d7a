"""Rollouts, their plans, and what is read off the evidence."""

from __future__ import annotations

from typing import Literal

import msgspec

from lockgate.versions.model import AgentSettings, VersionRef

Status = Literal["running", "paused", "promoted", "rolled_back", "aborted"]
LIVE: tuple[Status, ...] = ("running", "paused")
"""Statuses in which a rollout holds the route; the others are final."""

MetricKind = Literal["errors", "latency", "cost", "quality"]
Promote = Literal["when_safe", "when_not_harmful"]
Verdict = Literal["rollback", "promote", "inconclusive"]
Action = Literal["rollback", "advance", "promote", "wait"]
Scenario = Literal["equal", "worse"]


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a plan. Weight and mirror are percentages; the times are seconds.

    Weight 0 is a shadow phase: it ends with ``min_pairs`` scored pairs, or after ``max_seconds``. A canary phase ends
    after ``min_seconds`` and ``min_units`` candidate units.
    """

    weight: float = 0.0
    mirror: float = 0.0
    min_seconds: float = 0.0
    min_units: int = 0
    min_pairs: int = 0
    max_seconds: float | None = None

    @property
    def name(self) -> str:
        return f"{self.weight:g} %" if self.weight else "shadow"


class MetricSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one metric calls harm and what it calls safe. Part of the evidence key: another spec is other evidence.

    ``margin``: the drop of a 0..1 score that is tolerated (quality). ``ratio``: how many times the baseline is
    tolerated (errors, latency, cost). ``max_rate``: the share of units with an error, or over the baseline's
    percentile, below which the candidate counts as safe (errors, latency).
    """

    name: str
    kind: MetricKind
    margin: float = 0.05
    ratio: float = 1.0
    max_rate: float = 0.05
    cap: float = 3.0  # cost: cut at this many times the baseline's mean
    percentile: float = 0.9  # latency: of the frozen baseline
    higher_is_better: bool = True  # quality


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout goes: phases, what is watched, and the two error rates it may make. Times are seconds."""

    phases: tuple[Phase, ...]
    metrics: tuple[MetricSpec, ...]
    alpha: float = 0.05
    beta: float = 0.05
    promote: Promote = "when_safe"
    catastrophe: float | None = 0.25
    fidelity: float = 0.8
    min_reference: int = 20
    session_idle: float = 1800.0
    unit_deadline: float = 7200.0
    warm: float = 86400.0
    max_seconds: float | None = None

    @property
    def harm_meters(self) -> int:
        """m: how many harm meters share α; the fast path is one of them."""
        return len(self.metrics) + (self.catastrophe is not None)


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on its way out, or what became of it. ``phase`` indexes the plan's phases."""

    id: str
    environment: str
    agent: str
    baseline: VersionRef
    candidate: VersionRef
    plan: Plan
    settings: AgentSettings
    status: Status
    phase: int
    phase_started_at: float
    reason: str
    created_by: str
    created_at: float
    updated_at: float
    ended_at: float | None = None

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def current(self) -> Phase | None:
        """The phase it is in; None for a plan without phases, which promotes as soon as the candidate is ready."""
        return self.plan.phases[self.phase] if self.phase < len(self.plan.phases) else None


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What serves one agent in one environment, and what can come back at once until ``warm_until``."""

    environment: str
    agent: str
    stable: VersionRef
    settings: AgentSettings
    previous: VersionRef | None = None
    warm_until: float | None = None
    updated_at: float = 0.0
    updated_by: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric's evidence says now: ``harm`` and ``safe`` are E, not logarithms."""

    metric: str
    harm: float = 1.0
    safe: float = 1.0
    candidate_units: int = 0
    baseline_units: int = 0
    pairs: int = 0
    candidate_mean: float | None = None
    baseline_mean: float | None = None
    note: str = ""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision depends on."""

    phase: int
    phase_seconds: float
    phase_units: int
    pairs: int
    readings: tuple[Reading, ...]
    catastrophe: float = 1.0  # E of the fast path
    catastrophe_note: str = ""
    sample_ratio: float = 1.0  # E against "the arms are split by the stated weights"
    ready: bool = True  # a host serves the candidate
    paused: str = ""  # who says so; empty: it is not
    age: float = 0.0


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, the statistical verdict behind it, and the arithmetic in words."""

    action: Action
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def message(self) -> str:
        return "; ".join(self.reasons)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a rollout's history."""

    at: float
    kind: str
    message: str
    data: dict[str, object] = msgspec.field(default_factory=dict)


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the baseline's traffic is like, for simulations. Scores count as beta-distributed, costs as log-normal."""

    error_rate: float = 0.01
    score: float = 0.85
    score_spread: float = 0.2  # standard deviation of a unit's score
    cost_spread: float = 0.5  # standard deviation of a unit's cost, over its mean
    source: str = "assumed"


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Of one metric in one scenario: how often it came to a verdict, and after how many candidate units.

    ``verdict`` is what the scenario should end in: ``safe`` when the versions are equal, ``harm`` when the candidate
    is worse by ``effect``. ``false_harm`` is how often the equal candidate was rolled back.
    """

    metric: str
    scenario: Scenario
    effect: str
    verdict: Literal["safe", "harm"]
    share: float
    median: int | None
    p90: int | None
    false_harm: float = 0.0
