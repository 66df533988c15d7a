"""Cases, scores, rubrics, scorecards."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from lockgate.results import RunResult

Verdict = Literal["pass", "fail", "inconclusive"]
Status = Literal["scored", "skipped", "unscored", "error"]
Direction = Literal["higher", "lower"]
Unit = Literal["score", "rate", "usd", "seconds", "tokens", "count"]


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a golden set: an input and what is expected of the agent."""

    id: str
    input: Any
    expected_output: Any = None
    expected_tools: list[Any] | None = None
    contexts: list[str] | None = None
    reference_contexts: list[str] | None = None
    must_not: list[str] | None = None
    tags: list[str] = msgspec.field(default_factory=list)
    cluster: str | None = None
    split: str | None = None
    weight: float = 1.0
    labels: dict[str, Any] = msgspec.field(default_factory=dict)
    source_run: str | None = None
    owner: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of what the agent is given: a trial is kept under it, so that a new label costs no new run."""
        return _digest({"id": self.id, "input": self.input, "contexts": self.contexts, "metadata": self.metadata})

    @property
    def expectation_digest(self) -> str:
        """Of what answers are held against: a score is kept under it."""
        return _digest(
            {
                "expected_output": self.expected_output,
                "expected_tools": self.expected_tools,
                "reference_contexts": self.reference_contexts,
                "must_not": self.must_not,
                "labels": self.labels,
            }
        )


def score_key(scorer_digest: str, expectation_digest: str) -> str:
    """What a score is kept under: the scorer, and what the answer was held against (``Case.expectation_digest``)."""
    return hashlib.sha256(f"{scorer_digest} {expectation_digest}".encode()).hexdigest()


Subject = Callable[[Case, int], Awaitable[RunResult]]
"""The thing under test: runs one case once. The second argument is the trial's number, from 0."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on one trial: ``value`` in 0..1 (USD, seconds or counts for operational metrics).

    Without a value it says why: ``skipped``, the metric does not apply to this case; ``unscored``, the judge gave no
    usable answer; ``error``, the scorer failed, which counts as the worst value.
    """

    metric: str
    value: float | None
    reason: str = ""
    status: Status = "scored"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One dimension of a rubric.

    ``margin`` is how much worse than the baseline still counts as good: in the metric's own unit for scores and rates,
    as a fraction of the baseline's mean for cost, time and counts (0.2: a fifth more).
    """

    name: str
    scorer: str
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    direction: Direction = "higher"
    unit: Unit = "score"
    minimum: float | None = None
    maximum: float | None = None
    margin: float | None = None
    blocking: bool = True
    strict: bool = False
    never: bool = False  # one failure fails the gate
    version: str = ""  # of the scorer: the digest of the words a judge is asked with
    aggregate: str = ""  # how a case's trials become one value: their mean, or "pass^k", "pass@k" with k a number
    passes: float | None = None  # for those: a trial passes with this value; by default only with the best

    @property
    def bounded(self) -> bool:
        """Whether values lie in 0..1."""
        return self.unit in ("score", "rate")

    @property
    def worst(self) -> float | None:
        """What a failed trial counts as; None where there is no worst value."""
        if not self.bounded:
            return None
        return 0.0 if self.direction == "higher" else 1.0


class JudgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The model that grades, ``provider:name``, and how it is asked."""

    model: str
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int | None = None
    prompt: str | None = None  # the grading instructions, in place of our own
    panel: tuple[str, ...] = ()  # further judges, ``provider:name``: the median of all counts
    calibrated: bool = False

    @property
    def shown(self) -> str:
        """Its name for people: all of a panel."""
        return f"{self.model} (panel with {', '.join(self.panel)})" if self.panel else self.model


class Rubric(msgspec.Struct, frozen=True, kw_only=True):
    """What a good answer is, for one agent. ``digest`` names exactly this content."""

    metrics: tuple[Metric, ...]
    dataset: str | None = None
    trials: int = 1
    whole: bool = False  # all trials are run, also when the verdict is settled earlier
    concurrency: int = 4
    timeout: float = 120.0
    max_usd: float | None = None
    trial_max_usd: float | None = None
    trial_max_tokens: int | None = None
    max_trials: int | None = None
    baseline: str | None = None
    judge: JudgeSettings | None = None
    calibrated_judges: bool = False  # no blocking metric by a judge that is not calibrated, whatever its rule says
    slices: dict[str, float] = msgspec.field(default_factory=dict)
    sources: dict[str, str] = msgspec.field(default_factory=dict)  # file a scorer reads → its digest

    @property
    def digest(self) -> str:
        """Of what decides a verdict; how fast or how often trials run does not."""
        return _digest(
            {
                "metrics": [msgspec.to_builtins(metric) for metric in self.metrics],
                "judge": msgspec.to_builtins(self.judge),
                "slices": self.slices,
                "sources": self.sources,
            }
        )

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


def _digest(value: Any) -> str:
    # keys are sorted and numbers written one way; msgspec is some thirty times faster than RFC 8785 in Python
    return "sha256:" + hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


class Interval(msgspec.Struct, frozen=True):
    """A 95 % interval, over all looks together. What decides is one bound at the scorecard's ``level``."""

    low: float
    high: float


class MetricCard(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on a scorecard. ``difference`` is candidate − baseline on the cases both have."""

    name: str
    scorer: str
    unit: Unit
    direction: Direction
    blocking: bool
    verdict: Verdict | None  # None: nothing was asked of it
    reason: str
    mean: float | None = None
    interval: Interval | None = None
    traffic_mean: float | None = None  # by the cases' weights
    minimum: float | None = None
    maximum: float | None = None
    margin: float | None = None
    strict: bool = False
    baseline_mean: float | None = None
    difference: float | None = None
    difference_interval: Interval | None = None
    p_worse: float | None = None
    detectable: float | None = None  # smallest loss against the baseline seen with power 0.8
    case_sd: float | None = None
    trial_sd: float | None = None
    cases: int = 0
    scored: int = 0
    skipped: int = 0
    unscored: int = 0
    errors: int = 0
    missing: int = 0
    units: int = 0  # clusters: cases that share one count as one observation
    aggregate: str = ""  # of a case's trials: their mean, or pass^k, pass@k
    passes: float | None = None
    judge_mean: float | None = None  # as the judge has it, where ``mean`` is corrected by people's labels
    labels: int = 0  # answers that people have scored, from which it is corrected
    calibrated: bool | None = None  # whether its judge agrees with people; None: no judge scores it
    kappa: float | None = None  # how far, where it was calibrated
    judge_labels: int = 0  # answers that people have graded, which it was held against
    more_cases: int | None = None  # about so many more would settle it, where trials cannot
    more_trials: int | None = None  # about so many more trials a case would


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of case, by tag or cluster, and how one metric stands on it."""

    kind: Literal["tag", "cluster"]
    name: str
    metric: str
    cases: int
    mean: float
    baseline_mean: float | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A case whose mean on a metric moved by half its range or more."""

    case_id: str
    metric: str
    before: float
    after: float


class Flaky(msgspec.Struct, frozen=True, kw_only=True):
    """A case that one trial gets right and another wrong, and how much its trials vary."""

    case_id: str
    metric: str
    lowest: float
    highest: float
    sd: float  # standard deviation between its trials
    trials: int


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the data, in a design that was fixed before the first trial ran."""

    what: str  # "25 of 60 cases", "bought: 31 cases × 3 more trials"
    trials: int  # of the candidate, so far
    calls: int  # trials of both versions run for this look
    level: float  # what each bound was allowed to err at this look
    verdict: Verdict


class MutantCard(msgspec.Struct, frozen=True, kw_only=True):
    """A version made worse on purpose, and whether the gate saw it."""

    name: str
    what: str
    verdict: Verdict
    reason: str
    trials_run: int = 0

    @property
    def caught(self) -> bool:
        return self.verdict == "fail"


class SelfCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How often the gate is wrong on this project's own data.

    ``false_blocks`` of ``gates`` said *fail* of a version held against itself (A/A): cases drawn again by cluster,
    trials dealt out to the two sides at random.
    """

    gates: int
    false_blocks: int
    false_block_rate: float
    false_block_interval: Interval
    level: float  # what it may be
    inconclusive: int  # of the same gates
    mutants: list[MutantCard] = msgspec.field(default_factory=list)
    not_tried: list[str] = msgspec.field(default_factory=list)  # mutants that could not be made, and why

    @property
    def catch_rate(self) -> float | None:
        return sum(mutant.caught for mutant in self.mutants) / len(self.mutants) if self.mutants else None


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """How long runs took, in seconds; runs that failed are in."""

    p50: float
    p90: float
    p95: float
    p99: float
    highest: float


class TagCost(msgspec.Struct, frozen=True, kw_only=True):
    """What runs of one kind of case cost, in USD a run."""

    tag: str
    runs: int
    mean_usd: float
    highest_usd: float
    baseline_mean_usd: float | None = None
    mean_seconds: float = 0.0


class Scorecard(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation found."""

    id: str
    agent: str
    label: str
    behaviour_digest: str
    effective_digest: str
    environment: str
    dataset: str
    dataset_digest: str
    rubric_digest: str
    cases: int
    trials: int
    verdict: Verdict
    reasons: list[str]
    metrics: list[MetricCard]
    baseline_label: str | None = None
    baseline_effective: str | None = None
    slices: list[Slice] = msgspec.field(default_factory=list)
    broken: list[Change] = msgspec.field(default_factory=list)
    fixed: list[Change] = msgspec.field(default_factory=list)
    flaky: list[str] = msgspec.field(default_factory=list)
    failures: dict[str, int] = msgspec.field(default_factory=dict)  # error type → trials
    failed_trials: int = 0
    cached_trials: int = 0
    cost_nano: int = 0  # of the candidate's trials, cached ones included
    spent_nano: int = 0  # in this evaluation, judge and baseline included
    seconds: float = 0.0
    judge: str | None = None
    judge_calibrated: bool = False
    model_override: str | None = None
    warnings: list[str] = msgspec.field(default_factory=list)
    started_at: float = 0.0
    left_behind: int = 0  # trials that did not end when they were cancelled
    kind: Literal["quality", "safety", "fallback", "compare"] = "quality"
    clusters: int = 0
    level: float = 0.05  # of the bound that decides; smaller when the data were looked at more than once
    settled_early: bool = False  # before all of the rubric's own trials had run
    dataset_cases: int = 0  # of which ``cases`` were run
    looks: list[Look] = msgspec.field(default_factory=list)  # more than one: stopped early, or trials were bought
    bought_trials: int = 0
    flaky_cases: list[Flaky] = msgspec.field(default_factory=list)
    latency: Quantiles | None = None
    baseline_latency: Quantiles | None = None
    run_usd: float | None = None  # on average, of the trials that ran, failed ones included
    baseline_run_usd: float | None = None
    costs: list[TagCost] = msgspec.field(default_factory=list)  # by tag, the dearest first
    attestation: str | None = None
    self_check: SelfCheck | None = None
    scorer_digests: dict[str, str] = msgspec.field(default_factory=dict)  # metric → what its scores are kept under

    @property
    def mean_cost_usd(self) -> float:
        """USD a trial that ran, failed ones included."""
        return self.cost_nano / 1e9 / max(1, self.cases * self.trials) if self.run_usd is None else self.run_usd

    def metric(self, name: str) -> MetricCard | None:
        return next((card for card in self.metrics if card.name == name), None)
