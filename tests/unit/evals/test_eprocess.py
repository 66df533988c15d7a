"""Meters: arithmetic by hand, agreement with independent implementations, and error rates by simulation."""

from __future__ import annotations

import json
import math
import random

import msgspec
import numpy as np
import pytest
import ville
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lockgate.errors import InputError
from lockgate.evals.eprocess import (
    BETS,
    HARM_RATIOS,
    BernoulliMeter,
    CostMeter,
    LabelMeter,
    PairMeter,
    ScoreMeter,
    dump,
    load,
    log_threshold,
)

ALPHA = 0.05


def test_one_candidate_event_at_five_percent_moves_the_label_meter_by_the_likelihood_ratio() -> None:
    odds = 0.05 / 0.95
    by_hand = sum((r * odds / (1 + r * odds)) / (odds / (1 + odds)) for r in HARM_RATIOS) / len(HARM_RATIOS)
    meter = LabelMeter().observe(candidate=True, weight=0.05)
    assert math.exp(meter.log_harm()) == pytest.approx(by_hand)


def test_label_wealth_of_one_alternative_is_the_binomial_likelihood_ratio() -> None:
    meter = LabelMeter().observe(candidate=True, weight=0.25, count=7).observe(candidate=False, weight=0.25, count=5)
    odds = 0.25 / 0.75
    ratios = [stats.binom.pmf(7, 12, r * odds / (1 + r * odds)) / stats.binom.pmf(7, 12, 0.25) for r in HARM_RATIOS]
    assert math.exp(meter.log_harm()) == pytest.approx(np.mean(ratios))


def test_events_while_only_one_arm_serves_say_nothing() -> None:
    meter = LabelMeter().observe(candidate=True, weight=1.0, count=50).observe(candidate=False, weight=0.0, count=50)
    assert meter.log_harm() == pytest.approx(0.0)


def test_an_incident_that_hits_both_arms_is_not_held_against_the_candidate() -> None:
    meter = LabelMeter()
    for weight in (0.05, 0.25, 0.5):  # the error rate jumps tenfold at each step, in both arms
        events = int(200 / min(weight, 1 - weight))
        meter = meter.observe(candidate=True, weight=weight, count=round(events * weight))
        meter = meter.observe(candidate=False, weight=weight, count=round(events * (1 - weight)))
    assert meter.log_harm() < 0
    low, high = meter.interval()
    assert low < 1 < high


def test_a_split_that_is_not_the_stated_weight_shows() -> None:
    right = (
        LabelMeter(arms=())
        .observe(candidate=True, weight=0.5, count=500)
        .observe(candidate=False, weight=0.5, count=500)
    )
    wrong = right.observe(candidate=False, weight=0.5, count=250)
    assert right.log_split() < log_threshold(ALPHA) <= wrong.log_split()


def test_no_events_in_enough_units_make_an_absolute_rate_safe() -> None:
    assert BernoulliMeter().observe(False, count=100).log_safe(0.02) < log_threshold(ALPHA)
    assert BernoulliMeter().observe(False, count=300).log_safe(0.02) >= log_threshold(ALPHA)


def test_score_wealth_agrees_with_villes_betting_capital() -> None:
    rng = np.random.default_rng(3)
    stable, candidate = rng.beta(6, 2, 40), rng.beta(4, 3, 40)
    meter = ScoreMeter()
    for s, c in zip(stable, candidate, strict=True):
        meter = meter.observe_pair(float(s), float(c))
    x = stable - candidate  # in −1..1, tested against mean 0
    capital = np.mean([np.prod(1 + bet * x) for bet in BETS])
    assert meter.log_harm() == pytest.approx(math.log(capital), abs=0.06)  # half a bin is charged to each bet
    assert meter.log_harm() <= math.log(capital)


def test_both_betting_tests_reach_the_same_verdict_as_villes() -> None:
    rng = np.random.default_rng(7)
    verdicts = set()
    for loss in (0.0, 0.0, 0.25, 0.3):
        stable, candidate = rng.beta(8, 2, 150), np.clip(rng.beta(8, 2, 150) - loss, 0, 1)
        meter = ScoreMeter()
        for s, c in zip(stable, candidate, strict=True):
            meter = meter.observe_pair(float(s), float(c))
        peer = ville.BettingTest(0.0, bounds=(-1.0, 1.0), alternative="greater").fit(stable - candidate)
        ours = meter.log_harm() >= log_threshold(ALPHA)
        assert ours == (peer.log_e_values_[-1] >= log_threshold(ALPHA))
        verdicts.add(ours)
    assert verdicts == {True, False}


def test_the_interval_holds_the_true_difference_and_agrees_with_both_tests() -> None:
    rng = np.random.default_rng(5)
    meter = ScoreMeter()
    for s, c in zip(rng.beta(8, 2, 400), rng.beta(6, 4, 400), strict=True):  # means .8 and .6
        meter = meter.observe_pair(float(s), float(c))
    low, high = meter.interval(ALPHA)
    assert low < -0.2 < high < 0
    assert meter.log_harm(-high - 0.01) >= log_threshold(ALPHA, 2) > meter.log_harm(-high + 0.01)
    assert meter.log_safe(-low + 0.01) >= log_threshold(ALPHA, 2) > meter.log_safe(-low - 0.01)


def test_the_interval_is_everything_before_there_is_data() -> None:
    assert ScoreMeter().interval() == (-1.0, 1.0)


def test_a_block_uses_each_unit_once_and_keeps_the_latest_eight() -> None:
    meter = ScoreMeter()
    for number in range(20):
        meter = meter.observe(1.0 if number >= 12 else 0.0, candidate=False, at=float(number))
    meter = meter.observe(0.5, candidate=True, at=20.0)
    assert meter.differences == {500: 1}  # the last eight were 1.0
    assert meter.observe(0.5, candidate=True, at=21.0).blocks == 1


def test_a_unit_too_old_is_not_compared() -> None:
    meter = ScoreMeter().observe(1.0, candidate=False, at=0.0).observe(0.0, candidate=True, at=61.0, max_age=60.0)
    assert meter.blocks == 0


def test_a_cost_half_again_as_high_is_harm_and_an_equal_one_is_safe() -> None:
    rng = random.Random(2)
    worse, equal = CostMeter(cap=4.0), CostMeter(cap=4.0, safe_ratio=1.5)
    for number in range(600):
        for candidate in (False, True):
            cost = rng.gammavariate(4, 0.25)  # mean 1
            factor = 1.6 if candidate else 1.0
            worse = worse.observe(cost * factor, candidate=candidate, weight=0.5, at=float(number))
            equal = equal.observe(cost, candidate=candidate, weight=0.5, at=float(number))
    assert worse.log_harm() >= log_threshold(ALPHA) > worse.log_safe()
    assert equal.log_safe() >= log_threshold(ALPHA) > equal.log_harm()
    assert worse.ratio == pytest.approx(1.6, abs=0.1)


def test_rare_ruinous_costs_show_in_the_tail_though_they_are_cut() -> None:
    meter = CostMeter(cap=4.0)
    for number in range(20):
        meter = meter.observe(1000.0, candidate=True, weight=0.5, at=float(number))
    assert meter.log_tail(3.0) >= log_threshold(ALPHA)


def test_cost_meters_of_different_caps_do_not_add_up() -> None:
    with pytest.raises(InputError, match="do not add up"):
        CostMeter(cap=1.0) + CostMeter(cap=2.0)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1, math.inf])
def test_a_score_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match=r"not in 0\.\.1"):
        ScoreMeter().observe(bad, candidate=True, at=0.0)


def test_only_pairs_that_differ_count() -> None:
    meter = PairMeter()
    for _ in range(100):
        meter = meter.observe(stable_ok=True, candidate_ok=True)
    assert meter.log_harm() == 0
    for _ in range(10):
        meter = meter.observe(stable_ok=True, candidate_ok=False)
    assert meter.log_harm() >= log_threshold(ALPHA)
    assert stats.binomtest(10, 10, 0.5, alternative="greater").pvalue < ALPHA


events = st.lists(st.tuples(st.booleans(), st.sampled_from([0.05, 0.25, 0.5])), max_size=40)


@given(events, events)
@settings(max_examples=50)
def test_two_replicas_evidence_adds_up_to_that_of_one(
    left: list[tuple[bool, float]], right: list[tuple[bool, float]]
) -> None:
    def of(items: list[tuple[bool, float]]) -> LabelMeter:
        meter = LabelMeter()
        for candidate, weight in items:
            meter = meter.observe(candidate=candidate, weight=weight)
        return meter

    assert of(left) + of(right) == of(left + right) == of(right) + of(left)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
@settings(max_examples=50)
def test_a_meter_survives_json_and_its_interval_is_never_inside_out(pairs: list[tuple[float, float]]) -> None:
    meter = ScoreMeter()
    for stable, candidate in pairs:
        meter = meter.observe_pair(stable, candidate)
    assert load(ScoreMeter, json.loads(json.dumps(dump(meter)))) == meter
    assert load(ScoreMeter, msgspec.json.decode(msgspec.json.encode(meter))) == meter
    low, high = meter.interval()
    assert low <= high


def test_false_alarms_stay_under_alpha_however_often_one_looks() -> None:
    """300 rollouts of identical versions, looked at after every unit: at most 5 % may ever cross (3 SD allowed)."""
    rng = np.random.default_rng(11)
    crossed = {"labels": 0, "scores": 0}
    for _ in range(300):
        labels, scores = LabelMeter(), ScoreMeter()
        hit = {"labels": False, "scores": False}
        for number, candidate in enumerate(rng.random(80) < 0.25):
            labels = labels.observe(candidate=bool(candidate), weight=0.25)
            scores = scores.observe(float(rng.random() < 0.5), candidate=bool(candidate), at=float(number))
            hit["labels"] |= labels.log_harm() >= log_threshold(ALPHA)
            hit["scores"] |= bool(candidate) and scores.log_harm() >= log_threshold(ALPHA)
        for name in crossed:
            crossed[name] += hit[name]
    allowed = 300 * ALPHA + 3 * math.sqrt(300 * ALPHA * (1 - ALPHA))
    assert max(crossed.values()) <= allowed
