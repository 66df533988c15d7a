"""The forecast uses the same wealth as the meters, and says what a plan can decide."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lockgate.evals.eprocess import BernoulliMeter, LabelMeter, ScoreMeter
from lockgate.rollouts import simulate
from lockgate.rollouts.model import MetricSpec, Phase, Plan, Profile
from lockgate.rollouts.plan import parse


def plan(*metrics: MetricSpec, **more: float) -> Plan:
    return Plan(phases=(Phase(weight=50, min_units=1),), metrics=metrics, **more)  # type: ignore[arg-type]


def test_its_ratio_wealth_is_the_meters() -> None:
    mine = np.array([[True, False, True, True]])
    others = np.array([[0, 2, 1, 0]])
    weights = np.full(4, 0.25)
    logs = [simulate._ratio_bet(mine, others, weights, 1.0, r) for r in simulate.HARM_RATIOS]
    meter = LabelMeter().observe(candidate=True, weight=0.25, count=3).observe(candidate=False, weight=0.25, count=3)
    assert simulate._log_mean(logs)[0, -1] == pytest.approx(meter.log_harm(1.0))


def test_its_rate_wealth_is_the_meters() -> None:
    mine = np.array([[False] * 9 + [True]])
    logs = [simulate._rate_bet(mine, 0.1, r) for r in (0.1, *simulate.SAFE_RATIOS)]
    meter = BernoulliMeter().observe(False, count=9).observe(True)
    assert simulate._log_mean(logs)[0, -1] == pytest.approx(meter.log_safe(0.1))


def test_its_score_wealth_is_the_meters_but_for_rounding() -> None:
    pairs = [(0.9, 0.5), (0.8, 0.7), (1.0, 0.2)]
    meter = ScoreMeter()
    for stable, candidate in pairs:
        meter = meter.observe_pair(stable, candidate)
    x = np.array([[stable - candidate - 0.1 for stable, candidate in pairs]])
    assert simulate._bets(x, 1.1)[0, -1] == pytest.approx(meter.log_harm(0.1), abs=0.01)


def test_weights_follow_the_plan_shadow_pairs_first() -> None:
    given = parse({"shadow": {"min_pairs": 2}, "phases": [{"weight": 5, "min_units": 3}, {"weight": 25}]})
    assert simulate.weight_of_unit(given, 7).tolist() == [0.5, 0.5, 0.05, 0.05, 0.05, 0.25, 0.25]


def test_a_plan_that_can_decide_says_when() -> None:
    spec = MetricSpec(name="grounded", kind="quality", margin=0.15)
    found = simulate.simulate(plan(spec), Profile(score=0.85, score_spread=0.2), units=400, trials=100)
    safe, harm = found
    assert (safe.scenario, safe.verdict, harm.scenario, harm.verdict) == ("equal", "safe", "worse", "harm")
    assert safe.share > 0.95
    assert harm.share > 0.95
    assert safe.median is not None
    assert 10 < safe.median < 100
    assert harm.effect == "0.85 → 0.55"


def test_a_plan_that_cannot_decide_says_so() -> None:
    spec = MetricSpec(name="grounded", kind="quality", margin=0.005)
    safe, _ = simulate.simulate(plan(spec), Profile(), units=200, trials=50)
    assert safe.share < 0.1
    assert safe.median is None


def test_equal_arms_are_rarely_rolled_back() -> None:
    metrics = (
        MetricSpec(name="errors", kind="errors"),
        MetricSpec(name="cost_usd", kind="cost", ratio=1.0),
        MetricSpec(name="grounded", kind="quality", margin=0.0),
    )
    found = simulate.simulate(plan(*metrics), Profile(error_rate=0.05), units=500, trials=400)
    false = [one.false_harm for one in found if one.scenario == "equal"]
    # m = 4 meters share 5 %: 1.25 % each; 4 standard deviations of 400 trials are 2.2 %
    assert all(share <= 0.0125 + 0.0222 for share in false)


def test_scores_that_are_yes_or_no_keep_their_mean() -> None:
    rng = np.random.default_rng(0)
    drawn = simulate._betas(rng, 0.85, math.sqrt(0.85 * 0.15), (20_000,))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(0.85, abs=0.01)
