"""From runs to evidence: what one unit yields, when it may enter, and what each metric's meters make of it.

A unit is an assignment key with all its runs. Units enter in order of assignment, each once, with the weight in force
when it was assigned, as soon as it is complete: idle with nothing running and everything scored, or past its deadline.
Everything here can be computed again from the runs (STATISTICS.md, section 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lockgate.evals.eprocess import BernoulliMeter, CostMeter, LabelMeter, ScoreMeter
from lockgate.results import RunStatus
from lockgate.rollouts.model import MetricSpec, Plan, Reading

MAIN = 0.9
"""The share of a metric's wealth put on its main bet; the rest is on the second one (see :func:`read`)."""
REFERENCE_UNITS = 500
"""A frozen baseline reference is taken from at most this many of the latest units."""

EMPTY_SECONDS = 15.0
"""A unit of which no run was recorded is waited for at least this long."""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence needs to know of one run. ``scores`` has an entry for each metric scored; None: skipped.

    Of a shadow, ``tool_calls`` are those that touch the world, ``replayed_calls`` those answered from the record.
    """

    id: str
    key: str
    status: RunStatus
    cost_nano: int
    started_at: float
    ended_at: float | None
    attempt: int = 1
    error_type: str | None = None
    tool_calls: int = 0
    replayed_calls: int = 0
    scores: dict[str, float | None] = msgspec.field(default_factory=dict)


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One assignment key and what it ran. ``weight`` is a fraction, as it stood at assignment."""

    seq: int
    key: str
    candidate: bool
    weight: float
    assigned_at: float
    runs: tuple[RunFacts, ...] = ()


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A live run and the shadow of it; ``at`` is when the shadow began. ``first`` of its assignment key."""

    at: float
    primary: RunFacts
    shadow: RunFacts
    first: bool = True


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One unit in numbers. Scores are 0..1 with 1 good; None where there is nothing to say."""

    error: bool
    cost_nano: int
    seconds: float | None
    scores: dict[str, float]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline figure frozen before the evidence starts: mean cost (nano-USD), or a latency (seconds)."""

    value: float
    at: float  # units assigned earlier do not enter
    units: int


class Rates(msgspec.Struct, frozen=True, kw_only=True, tag="rates"):
    """Events by arm: errors, or runs slower than the reference."""

    events: LabelMeter = LabelMeter()
    candidate: BernoulliMeter = BernoulliMeter()
    baseline: BernoulliMeter = BernoulliMeter()


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """A score's blocks, of live units and of shadow pairs."""

    live: ScoreMeter = ScoreMeter()
    pairs: ScoreMeter = ScoreMeter()


class Costs(msgspec.Struct, frozen=True, kw_only=True, tag="costs"):
    """A cost's blocks, of live units and of shadow pairs."""

    live: CostMeter
    pairs: CostMeter


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One metric's evidence and how far it has read: all that is stored of it."""

    meter: Rates | Scores | Costs | None = None
    seq: int = 0  # the last assignment that entered
    pair_at: float = 0.0  # the last pair that entered
    pair_id: str = ""
    reference: Reference | None = None
    candidate_units: int = 0
    baseline_units: int = 0
    pairs: int = 0


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What passed through the evidence, whatever it measured: the sample ratio, and the fidelity of shadows."""

    split: LabelMeter = LabelMeter()
    seq: int = 0
    pair_at: float = 0.0
    pair_id: str = ""
    candidate_units: int = 0
    baseline_units: int = 0
    pairs: int = 0
    unscored_pairs: int = 0
    tool_calls: int = 0
    replayed_calls: int = 0

    @property
    def fidelity(self) -> float | None:
        """The share of the shadows' tool calls that was answered from the record."""
        return self.replayed_calls / self.tool_calls if self.tool_calls else None


def qualities(plan: Plan) -> tuple[MetricSpec, ...]:
    return tuple(spec for spec in plan.metrics if spec.kind == "quality")


def is_complete(unit: Unit, now: float, plan: Plan) -> bool:
    """Whether nothing more is expected of the unit: idle, nothing running, all scored; or past its deadline."""
    if now >= unit.assigned_at + plan.unit_deadline:
        return True
    if not unit.runs:  # its first run may be waiting for a host
        return now >= unit.assigned_at + max(plan.session_idle, EMPTY_SECONDS)
    last = unit.assigned_at
    for run in unit.runs:
        if run.status == "running" or not _scored(run, plan):
            return False
        last = max(last, run.started_at, run.ended_at or 0.0)
    return now >= last + plan.session_idle


def complete_prefix(units: Sequence[Unit], now: float, plan: Plan) -> list[Unit]:
    """The units that may enter: in order of assignment, up to the first that is not complete."""
    prefix: list[Unit] = []
    for unit in units:
        if not is_complete(unit, now, plan):
            break
        prefix.append(unit)
    return prefix


def observe(runs: Iterable[RunFacts], plan: Plan) -> Observation | None:
    """What a unit yields; None when nothing of it ran to an end.

    Costs add up, latencies and scores are means, one failure is an error. A failed run scores 0: it is never dropped.
    A run that the client cancelled has a cost and nothing else; one that waited for an approval has no latency.
    """
    listed = [run for run in runs if run.status != "running"]
    ended = [run for run in listed if run.status != "cancelled"]
    if not ended:
        return None
    timed = [run.ended_at - run.started_at for run in ended if run.ended_at is not None and run.attempt == 1]
    scores: dict[str, float] = {}
    for spec in qualities(plan):
        values = [value for run in ended if (value := _goodness(run, spec)) is not None]
        if values:
            scores[spec.name] = sum(values) / len(values)
    return Observation(
        error=any(run.status == "failed" for run in ended),
        cost_nano=sum(run.cost_nano for run in listed),
        seconds=sum(timed) / len(timed) if timed else None,
        scores=scores,
    )


def freeze(
    spec: MetricSpec, baseline: Sequence[tuple[float, Observation]], began_at: float, minimum: int
) -> Reference | None:
    """The baseline's figure, from (first started at, observation) of its units; None while there are too few.

    Taken from before the rollout where that is enough; else from the first ``minimum`` units, which then stay out of
    the evidence, as does all that was assigned before the last of them.
    """
    ordered = sorted(baseline, key=lambda unit: unit[0])
    before = [unit for unit in ordered if unit[0] < began_at][-REFERENCE_UNITS:]
    if len(before) >= max(minimum, 1):
        chosen, at = before, began_at
    else:
        chosen = ordered[: max(minimum, 1)]
        if len(chosen) < max(minimum, 1):
            return None
        at = chosen[-1][0]
    if spec.kind == "cost":
        value = sum(seen.cost_nano for _, seen in chosen) / len(chosen)
    else:
        times = sorted(seen.seconds for _, seen in chosen if seen.seconds is not None)
        if not times:
            return None
        value = times[min(len(times) - 1, math.ceil(spec.percentile * len(times)) - 1)]
    return Reference(value=value, at=at, units=len(chosen))


def needs_reference(spec: MetricSpec) -> bool:
    return spec.kind in ("cost", "latency")


def add_unit(spec: MetricSpec, state: State, unit: Unit, seen: Observation | None) -> State:
    """The state after one complete unit. Units it has seen already change nothing."""
    if unit.seq <= state.seq:
        return state
    state = msgspec.structs.replace(state, seq=unit.seq)
    if seen is None or (state.reference is not None and unit.assigned_at < state.reference.at):
        return state
    meter = _meter(spec, state)
    if isinstance(meter, Rates):
        event = seen.error if spec.kind == "errors" else _slow(state, seen)
        if event is None:
            return state
        meter = _count_rate(meter, event, candidate=unit.candidate, weight=unit.weight)
    elif isinstance(meter, Scores):
        if spec.name not in seen.scores:
            return state
        live = meter.live.observe(
            seen.scores[spec.name], candidate=unit.candidate, at=unit.assigned_at, max_age=_BLOCK_AGE
        )
        meter = msgspec.structs.replace(meter, live=live)
    else:
        spent = meter.live.observe(
            float(seen.cost_nano),
            candidate=unit.candidate,
            weight=unit.weight,
            at=unit.assigned_at,
            max_age=_BLOCK_AGE,
        )
        meter = msgspec.structs.replace(meter, live=spent)
    return msgspec.structs.replace(
        state,
        meter=meter,
        candidate_units=state.candidate_units + unit.candidate,
        baseline_units=state.baseline_units + (not unit.candidate),
    )


def add_pair(spec: MetricSpec, state: State, pair: Pair, both: tuple[Observation, Observation] | None) -> State:
    """The state after one shadow pair; ``both`` is (primary, shadow), None when the pair ended unscored."""
    if (pair.at, pair.shadow.id) <= (state.pair_at, state.pair_id):
        return state
    state = msgspec.structs.replace(state, pair_at=pair.at, pair_id=pair.shadow.id)
    early = state.reference is not None and pair.at < state.reference.at
    if both is None or early or spec.kind == "latency":  # a shadow's tools answer at once: its latency says nothing
        return state
    primary, shadow = both
    meter = _meter(spec, state)
    if isinstance(meter, Rates):
        # Only primaries that succeeded are shadowed, so a ratio of failures would be one-sided; a rate is not.
        meter = msgspec.structs.replace(meter, candidate=meter.candidate.observe(shadow.error))
    elif shadow.error:
        return state
    elif isinstance(meter, Scores):
        if spec.name not in primary.scores or spec.name not in shadow.scores:
            return state
        scored = meter.pairs.observe_pair(primary.scores[spec.name], shadow.scores[spec.name])
        meter = msgspec.structs.replace(meter, pairs=scored)
    else:
        spent = meter.pairs.observe(float(primary.cost_nano), candidate=False, weight=0.5, at=0.0)
        spent = spent.observe(float(shadow.cost_nano), candidate=True, weight=0.5, at=0.0)
        meter = msgspec.structs.replace(meter, pairs=spent)
    return msgspec.structs.replace(state, meter=meter, pairs=state.pairs + 1)


def read(spec: MetricSpec, state: State) -> Reading:
    """The metric's E for harm and for safety.

    Each is a weighted mean of two bets, so that together they still cost one test. Harm: the ratio or difference, and
    for costs what the cap cut off. Safe: for rates, either below the stated maximum or below twice the baseline.
    """
    meter = _meter(spec, state) if state.meter is not None or not needs_reference(spec) else None
    empty = Reading(
        metric=spec.name,
        candidate_units=state.candidate_units,
        baseline_units=state.baseline_units,
        pairs=state.pairs,
    )
    if meter is None:
        return msgspec.structs.replace(empty, note="" if state.reference else "no baseline reference yet")
    if isinstance(meter, Rates):
        return msgspec.structs.replace(
            empty,
            harm=wealth(meter.events.log_harm(spec.ratio)),
            safe=MAIN * wealth(meter.candidate.log_safe(spec.max_rate))
            + (1 - MAIN) * wealth(meter.events.log_safe(2 * spec.ratio)),
            candidate_mean=_rate(meter.candidate),
            baseline_mean=_rate(meter.baseline),
        )
    if isinstance(meter, Scores):
        scores = meter.live + meter.pairs
        return msgspec.structs.replace(
            empty,
            harm=wealth(scores.log_harm(spec.margin)),
            safe=wealth(scores.log_safe(spec.margin)),
            candidate_mean=scores.candidate_sum / scores.candidate_units if scores.candidate_units else None,
            baseline_mean=scores.stable_sum / scores.stable_units if scores.stable_units else None,
        )
    costs = meter.live + meter.pairs
    free = costs.stable_sum == 0 == costs.candidate_sum and costs.candidate_units > 0
    return msgspec.structs.replace(
        empty,
        harm=MAIN * wealth(costs.log_harm()) + (1 - MAIN) * wealth(costs.log_tail()),
        safe=math.inf if free else wealth(costs.log_safe()),
        candidate_mean=costs.candidate_sum / costs.candidate_units / 1e9 if costs.candidate_units else None,
        baseline_mean=costs.stable_sum / costs.stable_units / 1e9 if costs.stable_units else None,
        note="both versions cost nothing" if free else "",
    )


def difference(spec: MetricSpec, state: State, alpha: float) -> tuple[float, float] | None:
    """A (1−α) confidence sequence: of the difference for scores, of the ratio for errors and latency."""
    if isinstance(state.meter, Scores):
        return (state.meter.live + state.meter.pairs).interval(alpha)
    if isinstance(state.meter, Rates) and state.meter.events.candidate + state.meter.events.stable:
        return state.meter.events.interval(alpha)
    return None


def add_traffic(traffic: Traffic, unit: Unit, seen: Observation | None) -> Traffic:
    """Count a unit that entered; one that left no trace is missing from its arm, which the sample ratio shows."""
    if unit.seq <= traffic.seq:
        return traffic
    traffic = msgspec.structs.replace(traffic, seq=unit.seq)
    if seen is None:
        return traffic
    return msgspec.structs.replace(
        traffic,
        split=traffic.split.observe(candidate=unit.candidate, weight=unit.weight),
        candidate_units=traffic.candidate_units + unit.candidate,
        baseline_units=traffic.baseline_units + (not unit.candidate),
    )


def catastrophe(assigned: int, failed: int, rate: float) -> float:
    """E of the fast path against "at most ``rate`` of the candidate's units fail", in order of arrival.

    Units that are still open count as good. Wealth only grows with failures, so this is never more than what the
    same units give in order of assignment once all have ended: failing faster than succeeding gains nothing.
    """
    return wealth(BernoulliMeter(units=assigned, events=min(failed, assigned)).log_harm(rate))


def metric_key(agent: str, environment: str, baseline: str, candidate: str, spec: Mapping[str, object]) -> str:
    """The evidence key: a digest of candidate, baseline, environment and metric spec."""
    import hashlib

    import rfc8785

    named = {
        "agent": agent,
        "environment": environment,
        "baseline": baseline,
        "candidate": candidate,
        "metric": dict(spec),
    }
    return "sha256:" + hashlib.sha256(rfc8785.dumps(named)).hexdigest()  # type: ignore[arg-type]


_BLOCK_AGE = 3600.0  # seconds between the oldest and the newest unit that are compared


def _scored(run: RunFacts, plan: Plan) -> bool:
    return run.status != "completed" or all(spec.name in run.scores for spec in qualities(plan))


def _goodness(run: RunFacts, spec: MetricSpec) -> float | None:
    if run.status == "failed":
        return 0.0
    value = run.scores.get(spec.name)
    if value is None or not 0 <= value <= 1:
        return None
    return value if spec.higher_is_better else 1 - value


def _slow(state: State, seen: Observation) -> bool | None:
    if state.reference is None or seen.seconds is None:
        return None
    return seen.seconds > state.reference.value


def _count_rate(meter: Rates, event: bool, *, candidate: bool, weight: float) -> Rates:
    return Rates(
        events=meter.events.observe(candidate=candidate, weight=weight) if event else meter.events,
        candidate=meter.candidate.observe(event) if candidate else meter.candidate,
        baseline=meter.baseline if candidate else meter.baseline.observe(event),
    )


def _meter(spec: MetricSpec, state: State) -> Rates | Scores | Costs:
    if state.meter is not None:
        return state.meter
    if spec.kind in ("errors", "latency"):
        return Rates()
    if spec.kind == "quality":
        return Scores()
    value = state.reference.value if state.reference else 0.0
    empty = CostMeter(cap=max(value, 1.0) * spec.cap, harm_ratio=spec.ratio, safe_ratio=spec.ratio)
    return Costs(live=empty, pairs=empty)


def _rate(meter: BernoulliMeter) -> float | None:
    return meter.events / meter.units if meter.units else None


def wealth(log: float) -> float:
    return math.exp(min(log, 700.0))
