"""Units become evidence in order of assignment, once, when they are complete."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.rollouts import evidence
from lockgate.rollouts.evidence import Observation, Pair, Reference, RunFacts, State, Unit
from lockgate.rollouts.model import MetricSpec, Plan

ERRORS = MetricSpec(name="errors", kind="errors", ratio=1.0, max_rate=0.1)
LATENCY = MetricSpec(name="latency", kind="latency", ratio=1.0, max_rate=0.25)
COST = MetricSpec(name="cost_usd", kind="cost", ratio=1.2, cap=3.0)
QUALITY = MetricSpec(name="grounded", kind="quality", margin=0.1)
PLAN = Plan(phases=(), metrics=(ERRORS, LATENCY, COST, QUALITY), session_idle=10, unit_deadline=100)

_ids = itertools.count()


def run(status: str = "completed", *, at: float = 0.0, seconds: float | None = 1.0, **more: Any) -> RunFacts:
    given = {"cost_nano": 100, "scores": {"grounded": 1.0} if status == "completed" else {}, **more}
    ended = None if seconds is None else at + seconds
    return RunFacts(id=f"run_{next(_ids):06}", key="k", status=status, started_at=at, ended_at=ended, **given)


def unit(*runs: RunFacts, seq: int = 1, candidate: bool = True, weight: float = 0.5, at: float = 0.0) -> Unit:
    return Unit(seq=seq, key=f"k{seq}", candidate=candidate, weight=weight, assigned_at=at, runs=runs)


def observation(*, error: bool = False, cost: int = 100, seconds: float = 1.0, score: float = 1.0) -> Observation:
    return Observation(error=error, cost_nano=cost, seconds=seconds, scores={"grounded": score})


# --- when a unit may enter --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "now", "complete"),
    [
        ([run(at=0, seconds=5)], 14.9, False),  # idle since 5, for 9.9 of 10 s
        ([run(at=0, seconds=5)], 15.0, True),
        ([run(at=0, seconds=5), run(at=12, seconds=2)], 23.9, False),  # the second run ended at 14
        ([run(at=0, seconds=5), run(at=12, seconds=2)], 24.0, True),
        ([run("running", at=0, seconds=None)], 99.9, False),
        ([run("running", at=0, seconds=None)], 100.0, True),  # past the deadline it counts as it stands
        ([run("suspended", at=0, seconds=None)], 10.0, True),  # waits for a person: nothing is running
        ([run(at=0, seconds=5, scores={})], 50.0, False),  # not scored yet
        ([run(at=0, seconds=5, scores={"grounded": None})], 50.0, True),  # scored: does not apply
        ([run("failed", at=0, seconds=5)], 50.0, True),  # a failed run is never scored
        ([], 14.9, False),  # nothing recorded: its run may be waiting for a host
        ([], 15.0, True),
    ],
)
def test_a_unit_is_complete_when_idle_or_past_its_deadline(runs: list[RunFacts], now: float, complete: bool) -> None:
    assert evidence.is_complete(unit(*runs), now, PLAN) is complete


def test_units_enter_in_order_of_assignment_whatever_finishes_first() -> None:
    slow = unit(run("running", seconds=None), seq=1)
    fast = unit(run("failed", seconds=0.1), seq=2)
    assert evidence.complete_prefix([slow, fast], 20.0, PLAN) == []
    done = unit(run(at=0, seconds=30), seq=1)
    assert evidence.complete_prefix([done, fast], 40.0, PLAN) == [done, fast]


# --- what a unit yields -----------------------------------------------------------------------------------------


def test_costs_add_up_scores_and_latencies_are_means_and_one_failure_is_an_error() -> None:
    seen = evidence.observe(
        [
            run(seconds=1, cost_nano=100, scores={"grounded": 0.5}),
            run("failed", seconds=3, cost_nano=50),  # scores 0: an error is never dropped
        ],
        PLAN,
    )
    assert seen == Observation(error=True, cost_nano=150, seconds=2.0, scores={"grounded": 0.25})


def test_a_run_the_client_cancelled_has_a_cost_and_nothing_else() -> None:
    seen = evidence.observe([run(seconds=1), run("cancelled", seconds=9, cost_nano=7, scores={})], PLAN)
    assert seen == Observation(error=False, cost_nano=107, seconds=1.0, scores={"grounded": 1.0})
    assert evidence.observe([run("cancelled", scores={})], PLAN) is None


def test_a_run_that_waited_for_a_person_has_no_latency() -> None:
    seen = evidence.observe([run(seconds=3600, attempt=2)], PLAN)
    assert seen is not None
    assert seen.seconds is None


def test_scores_where_lower_is_better_are_turned_round() -> None:
    spec = MetricSpec(name="toxicity", kind="quality", higher_is_better=False)
    plan = msgspec.structs.replace(PLAN, metrics=(spec,))
    seen = evidence.observe([run(scores={"toxicity": 0.2}), run("failed")], plan)
    assert seen is not None
    assert seen.scores == {"toxicity": pytest.approx(0.4)}  # (0.8 + 0) / 2


# --- the frozen reference ---------------------------------------------------------------------------------------


def units_at(*starts: float, cost: int = 100, seconds: float = 1.0) -> list[tuple[float, Observation]]:
    return [(start, observation(cost=cost, seconds=seconds)) for start in starts]


def test_the_reference_is_from_before_the_rollout_where_there_is_enough() -> None:
    baseline = [*units_at(1, 2, 3, cost=90), *units_at(11, cost=9000)]
    assert evidence.freeze(COST, baseline, 10.0, 3) == Reference(value=90.0, at=10.0, units=3)


def test_else_from_the_first_units_which_stay_out_of_the_evidence() -> None:
    baseline = units_at(9, 12, 11, 13, cost=90)
    assert evidence.freeze(COST, baseline, 10.0, 3) == Reference(value=90.0, at=12.0, units=3)
    assert evidence.freeze(COST, baseline[:2], 10.0, 3) is None


def test_the_latency_reference_is_a_percentile() -> None:
    baseline = [(float(n), observation(seconds=float(n))) for n in range(1, 11)]
    frozen = evidence.freeze(LATENCY, baseline, 100.0, 3)
    assert frozen is not None
    assert frozen.value == 9.0  # the 9th of 10: one in ten was slower


# --- meters -----------------------------------------------------------------------------------------------------


def feed(spec: MetricSpec, sequence: list[tuple[bool, Observation]], *, weight: float = 0.5, at: float = 0.0) -> State:
    state = State(reference=Reference(value=100.0 if spec.kind == "cost" else 1.5, at=0.0, units=20))
    for number, (candidate, seen) in enumerate(sequence, 1):
        entered = unit(seq=number, candidate=candidate, weight=weight, at=at + number)
        state = evidence.add_unit(spec, state, entered, seen)
    return state


def test_a_unit_counts_once() -> None:
    state = feed(ERRORS, [(True, observation(error=True))] * 3)
    again = evidence.add_unit(ERRORS, state, unit(seq=2), observation(error=True))
    assert again == state


def test_errors_on_the_candidate_alone_are_harm_and_on_both_are_not() -> None:
    alone = feed(ERRORS, [(True, observation(error=True)), (False, observation())] * 12)
    both = feed(ERRORS, [(True, observation(error=True)), (False, observation(error=True))] * 40)
    assert evidence.read(ERRORS, alone).harm > 100
    assert evidence.read(ERRORS, both).harm < 1


def test_an_incident_while_the_weight_rises_does_not_look_like_harm() -> None:
    state = State()
    number = 0
    for weight, share in ((0.05, 1), (0.25, 5), (0.5, 10)):  # each unit fails with the same chance in both arms
        for index in range(20 * 20):
            number += 1
            entered = unit(seq=number, candidate=index % 20 < share, weight=weight)
            failing = weight > 0.1 and index % 7 < 2
            state = evidence.add_unit(ERRORS, state, entered, observation(error=failing))
    assert evidence.read(ERRORS, state).harm < 2


def test_no_errors_at_all_become_safe_by_the_stated_maximum() -> None:
    reading = evidence.read(ERRORS, feed(ERRORS, [(True, observation())] * 60))
    assert reading.safe > 20
    assert reading.harm == 1.0


def test_a_score_that_drops_by_more_than_the_margin_is_harm_and_one_within_it_is_safe() -> None:
    worse = feed(QUALITY, [(False, observation(score=0.9)), (True, observation(score=0.5))] * 30)
    within = feed(QUALITY, [(False, observation(score=0.9)), (True, observation(score=0.88))] * 60)
    assert evidence.read(QUALITY, worse).harm > 100
    assert evidence.read(QUALITY, worse).safe < 1
    assert evidence.read(QUALITY, within).safe > 20
    assert evidence.read(QUALITY, within).harm < 1


def test_twice_the_cost_is_harm() -> None:
    reading = evidence.read(COST, feed(COST, [(False, observation(cost=100)), (True, observation(cost=200))] * 30))
    assert reading.harm > 60
    assert (reading.candidate_mean, reading.baseline_mean) == (200e-9, 100e-9)


def test_a_rare_ruinous_cost_is_not_hidden_by_the_cap() -> None:
    usual = [(False, observation(cost=100)), (True, observation(cost=95))]
    ruinous = [(False, observation(cost=100)), (True, observation(cost=100_000))]
    reading = evidence.read(COST, feed(COST, (usual * 9 + ruinous) * 40))
    assert reading.harm > 60


def test_versions_that_cost_nothing_are_safe_on_cost() -> None:
    reading = evidence.read(COST, feed(COST, [(False, observation(cost=0)), (True, observation(cost=0))]))
    assert reading.safe == float("inf")
    assert evidence.read(COST, feed(COST, [(False, observation(cost=0)), (True, observation(cost=5))])).safe < 20


def test_units_from_before_the_reference_stay_out() -> None:
    state = State(reference=Reference(value=100.0, at=50.0, units=20))
    state = evidence.add_unit(COST, state, unit(seq=1, at=49.0), observation())
    assert (state.seq, state.candidate_units) == (1, 0)
    state = evidence.add_unit(COST, state, unit(seq=2, at=50.0), observation())
    assert (state.seq, state.candidate_units) == (2, 1)


def test_pairs_are_evidence_for_quality_and_cost_and_not_for_latency() -> None:
    states = {spec.name: State(reference=Reference(value=100.0, at=0.0, units=20)) for spec in PLAN.metrics}
    for number in range(1, 31):
        pair = Pair(at=float(number), primary=run(), shadow=run())
        both = (observation(cost=100, score=0.9), observation(cost=200, score=0.5))
        for spec in PLAN.metrics:
            states[spec.name] = evidence.add_pair(spec, states[spec.name], pair, both)
    assert evidence.read(QUALITY, states["grounded"]).harm > 100
    assert evidence.read(COST, states["cost_usd"]).harm > 60
    assert states["latency"].pairs == 0
    assert evidence.read(ERRORS, states["errors"]).pairs == 30


def test_a_pair_whose_shadow_failed_counts_as_an_error_and_scores_nothing() -> None:
    pair = Pair(at=1.0, primary=run(), shadow=run("failed"))
    both = (observation(), observation(error=True, score=0.0))
    assert evidence.add_pair(QUALITY, State(), pair, both).pairs == 0
    assert evidence.read(ERRORS, evidence.add_pair(ERRORS, State(), pair, both)).candidate_mean == 1.0


def test_a_state_survives_json() -> None:
    for spec in PLAN.metrics:
        state = feed(spec, [(False, observation(cost=90)), (True, observation(error=True, cost=300, score=0.2))] * 3)
        stored = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(state, str_keys=True)))
        assert msgspec.convert(stored, State, str_keys=True) == state


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.05, 0.9))
def test_the_fast_path_only_grows_with_failures(units: int, failed: int, rate: float) -> None:
    failed = min(failed, units)
    now = evidence.catastrophe(units, failed, rate)
    assert evidence.catastrophe(units + 1, failed + 1, rate) >= evidence.catastrophe(units + 1, failed, rate)
    assert evidence.catastrophe(units + 1, failed, rate) <= now + 1e-12


def test_the_fast_path_needs_few_units_when_everything_fails() -> None:
    first = next(n for n in itertools.count(1) if evidence.catastrophe(n, n, 0.25) >= 100)
    assert first <= 6


def test_the_evidence_key_depends_on_what_is_compared_where_and_how() -> None:
    base = ("triage", "prod", "sha256:a", "sha256:b", {"name": "errors", "ratio": 1.0})
    changed = [
        ("other", *base[1:]),
        (base[0], "dev", *base[2:]),
        (*base[:2], "sha256:c", *base[3:]),
        (*base[:3], "sha256:c", base[4]),
        (*base[:4], {"name": "errors", "ratio": 1.5}),
    ]
    keys = {evidence.metric_key(*each) for each in [base, *changed]}  # type: ignore[arg-type]
    assert len(keys) == 6
    assert evidence.metric_key(*base) == evidence.metric_key(*base[:4], {"ratio": 1.0, "name": "errors"})  # type: ignore[arg-type]


# --- calibration: identical arms must not be rolled back ----------------------------------------------------------


def test_identical_arms_are_rarely_rolled_back_however_often_one_looks() -> None:
    """100 rollouts of 150 units with peeking after each: at most 5 % expected; 12 would be a chance of 2 in 1,000."""
    rng = np.random.default_rng(7)
    rolled_back = 0
    for _ in range(100):
        candidate = rng.random(150) < 0.3
        scores = np.round(rng.beta(6, 2, 150), 2)
        state, harm = State(), 0.0
        spec = MetricSpec(name="grounded", kind="quality", margin=0.0)
        for seq, (arm, score) in enumerate(zip(candidate.tolist(), scores.tolist(), strict=True), 1):
            entered = unit(seq=seq, candidate=arm, weight=0.3, at=float(seq))
            state = evidence.add_unit(spec, state, entered, observation(score=score))
            if arm:
                harm = max(harm, evidence.read(spec, state).harm)
        rolled_back += harm >= 1 / 0.05
    assert rolled_back < 12
