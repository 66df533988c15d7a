"""The estimator: exact where exact answers exist, and covering where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lockgate.evals.statistics import (
    LARGE,
    Units,
    by_cluster,
    detectable,
    estimate,
    estimates,
    forecast,
    holm,
    p_below_zero,
    spread,
    standard_error,
)


def alone(values: list[float] | np.ndarray) -> Units:
    """Every case its own cluster."""
    return by_cluster(np.asarray(values, dtype=float), [str(number) for number in range(len(values))])


@pytest.mark.parametrize(("right", "of"), [(0, 20), (50, 60), (60, 60), (3, 8)])
def test_bounds_of_single_right_or_wrong_answers_are_clopper_and_pearsons(right: int, of: int) -> None:
    found = estimate(alone([1.0] * right + [0.0] * (of - right)), (0, 1))
    low = stats.beta.ppf(0.05, right, of - right + 1) if right else 0.0
    high = stats.beta.ppf(0.95, right + 1, of - right) if right < of else 1.0
    assert found.mean == right / of
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_sixty_cases_without_a_difference_do_not_prove_that_there_is_none() -> None:
    found = estimate(alone([0.0] * 60), (-1, 1))
    assert found.low == pytest.approx(-(1 - 0.05 ** (1 / 60)), abs=0.003)  # the rule of three: about 3/60


def test_cases_of_one_cluster_are_one_observation() -> None:
    values = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0] * 10
    apart = alone(values)
    together = by_cluster(np.array(values), [str(number // 3) for number in range(60)])
    assert standard_error(together) == pytest.approx(standard_error(apart) * math.sqrt(3), rel=0.05)
    assert estimate(together, (0, 1)).low < estimate(apart, (0, 1)).low


def test_the_standard_error_of_single_cases_is_the_usual_one() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert standard_error(alone(values)) == pytest.approx(stats.sem(values))


def test_the_cluster_robust_error_agrees_with_the_sandwich_formula() -> None:
    rng = np.random.default_rng(2)
    values, clusters = rng.normal(size=90), rng.integers(0, 25, 90)
    residuals = values - values.mean()
    meat = sum(residuals[clusters == one].sum() ** 2 for one in np.unique(clusters))
    count = len(np.unique(clusters))
    by_hand = math.sqrt(count / (count - 1) * meat) / 90
    assert standard_error(by_cluster(values, clusters.astype(str))) == pytest.approx(by_hand)


def test_for_many_clusters_the_bounds_are_the_normal_ones_and_join_smoothly() -> None:
    rng = np.random.default_rng(3)
    values = rng.beta(8, 2, LARGE)
    few, many = estimate(alone(values[:-1]), (0, 1)), estimate(alone(values), (0, 1))
    assert many.low == pytest.approx(many.mean - 1.645 * many.error, abs=1e-4)
    assert few.low == pytest.approx(many.low, abs=0.002)
    assert few.high == pytest.approx(many.high, abs=0.002)


def test_weights_move_the_mean_to_what_they_weigh() -> None:
    units = by_cluster(np.array([1.0, 0.0]), ["a", "b"], np.array([3.0, 1.0]))
    assert estimate(units, (0, 1)).mean == 0.75


def test_the_p_value_is_small_only_when_the_mean_is_surely_negative() -> None:
    rng = np.random.default_rng(4)
    assert p_below_zero(alone(rng.normal(-0.3, 0.2, 60).clip(-1, 1)), (-1, 1)) < 0.001
    assert p_below_zero(alone([0.0] * 60), (-1, 1)) == 1.0
    assert p_below_zero(alone(rng.normal(-0.3, 0.2, LARGE).clip(-1, 1)), (-1, 1)) < 1e-6


def test_trial_variance_is_told_from_case_variance() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, 0.3, (4000, 1)) + rng.normal(0, 0.2, (4000, 3))
    found = spread(values)
    assert found.case == pytest.approx(0.3, abs=0.015)
    assert found.trial == pytest.approx(0.2, abs=0.01)
    assert spread(values[:, :1]).trial == 0.0


def test_trials_that_were_not_scored_do_not_disturb_the_split() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.0], [np.nan, np.nan]])
    assert spread(values).trial == 0.0


def test_the_detectable_loss_is_never_below_what_so_few_cases_can_hold() -> None:
    assert detectable(0.0, 60, bounded=True) == pytest.approx(0.0487, abs=1e-3)
    assert detectable(0.1, 60, bounded=True) == pytest.approx((1.6449 + 0.8416) * 0.1, abs=1e-3)


def test_a_forecast_keeps_the_mean_and_has_less_scatter_or_more_clusters() -> None:
    units = by_cluster(np.array([1.0, 0.0, 1.0, 1.0, 0.5, 0.0]), ["a", "a", "b", "c", "c", "d"])
    mean = units.sums.sum() / units.sizes.sum()
    for noise, more in ((0.5, 1.0), (1.0, 4.0), (0.0, 2.0)):
        found = forecast(units, noise=noise, more=more)
        assert len(found.sums) == 4 * more
        assert found.sums.sum() / found.sizes.sum() == pytest.approx(mean)
    assert standard_error(forecast(units, noise=0.5)) == pytest.approx(standard_error(units) / 2, rel=0.05)
    assert standard_error(forecast(units, more=4.0)) < 0.6 * standard_error(units)


@pytest.mark.parametrize("count", [40, LARGE])
def test_bounds_at_several_levels_are_those_of_each_and_at_level_zero_only_theory_is_known(count: int) -> None:
    units = alone([1.0] * (count - 5) + [0.0] * 5)
    found = estimates(units, (0, 1), [0.05, 0.01, 0.0])
    assert found[:2] == [estimate(units, (0, 1), alpha=alpha) for alpha in (0.05, 0.01)]
    assert found[1].low < found[0].low
    assert (found[2].low, found[2].high) == (0, 1)


def test_holm_rejects_step_by_step() -> None:
    assert holm({"a": 0.01, "b": 0.02, "c": 0.03}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.04}) == {"a"}
    assert holm({}) == set()
    assert holm({"a": 0.012, "b": 0.024, "c": 0.9, "d": 0.013}) == {"a", "d", "b"}  # .05/4, .05/3, .05/2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 5))
@settings(max_examples=40)
def test_bounds_are_in_range_around_the_mean_and_the_same_every_time(values: list[float], size: int) -> None:
    units = by_cluster(np.array(values), [str(number // size) for number in range(len(values))])
    found = estimate(units, (0, 1))
    assert -1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1 + 1e-9
    assert estimate(units, (0, 1)) == found


def test_lower_bounds_cover_where_the_normal_interval_does_not() -> None:
    """300 golden sets of 30 cases, of which 4 % fail: at most 5 % of bounds may miss the truth (3 SD allowed)."""
    rng = np.random.default_rng(6)
    bounds: dict[int, float] = {}
    missed = missed_by_normal = 0
    for wrong in rng.binomial(30, 0.04, 300).tolist():
        sample = np.array([0.0] * wrong + [1.0] * (30 - wrong))
        bounds.setdefault(wrong, estimate(alone(sample), (0, 1)).low)
        missed += bounds[wrong] > 0.96
        missed_by_normal += sample.mean() - 1.645 * sample.std(ddof=1) / math.sqrt(30) > 0.96
    assert missed <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)
    assert missed_by_normal > 60  # all thirty right has probability .29, and then its interval has no width
