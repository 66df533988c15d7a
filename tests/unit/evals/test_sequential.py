"""Designs of several looks."""

from __future__ import annotations

import doctest
from statistics import NormalDist

import numpy as np
import pytest

from lockgate.evals import sequential
from lockgate.evals.sequential import ALPHA, design, in_order, levels


def test_the_examples_are_true() -> None:
    assert doctest.testmod(sequential).failed == 0


def test_one_look_has_all_of_alpha() -> None:
    (only,) = design(15, 3, 3)
    assert (only.share, only.trials, only.level.bound, only.level.shown) == (1.0, 3, ALPHA, 0.025)
    assert only.level.family(2) == ALPHA / 2
    assert not only.early


@pytest.mark.parametrize(("clusters", "trials", "most"), [(200, 1, 1), (200, 3, 3), (60, 3, 12), (40, 2, 8)])
def test_a_random_walk_crosses_no_more_often_than_alpha_over_all_looks(clusters: int, trials: int, most: int) -> None:
    """A Brownian motion seen at the design's information: what the levels are made for."""
    stages = design(clusters, trials, most)
    shares = np.array([stage.share * stage.trials for stage in stages])
    shares /= shares[-1]
    random = np.random.default_rng(5)
    steps = random.normal(size=(40_000, len(stages))) * np.sqrt(np.diff(shares, prepend=0.0))
    walk = steps.cumsum(axis=1) / np.sqrt(shares)
    bounds = [NormalDist().inv_cdf(1 - stage.level.bound) for stage in stages]
    assert (walk > bounds).any(axis=1).mean() == pytest.approx(ALPHA, abs=0.005)
    of_three = [NormalDist().inv_cdf(1 - stage.level.family(3)) for stage in stages]
    assert (walk > of_three).any(axis=1).mean() == pytest.approx(ALPHA / 3, abs=0.003)


def test_the_last_look_keeps_most_of_its_power_and_claims_share_alpha() -> None:
    stages = design(200, 3, 3)
    assert stages[-1].level.bound > 0.7 * ALPHA
    assert sum(stage.level.claim for stage in stages) == pytest.approx(ALPHA)
    assert [stage.early for stage in stages] == [True] * (len(stages) - 1) + [False]


def test_a_small_set_says_pass_only_at_its_end_and_then_with_all_of_alpha() -> None:
    stages = design(50, 3, 3)
    assert [stage.level.holds for stage in stages] == [0.0] * (len(stages) - 1) + [pytest.approx(ALPHA)]
    assert all(stage.level.holds > 0 for stage in design(200, 3, 3))


def test_trials_that_a_metric_needs_are_run_from_the_first_look_on() -> None:
    assert {stage.trials for stage in design(200, 3, 3, fewest=3)} == {3}


def test_asked_to_run_all_it_looks_once_and_bought_looks_come_after() -> None:
    assert [stage.trials for stage in design(200, 3, 3, early=False)] == [3]
    bought = design(200, 3, 12, early=False)
    assert [(stage.trials, stage.bought) for stage in bought] == [(3, False), (6, True), (12, True)]


def test_the_order_of_cases_is_fixed_and_has_nothing_to_do_with_theirs() -> None:
    names = [f"c{number}" for number in range(100)]
    order = in_order(names)
    assert sorted(order) == list(range(100))
    assert order == in_order(names)
    assert in_order(names[::-1]) == order[::-1]
    assert abs(np.corrcoef(order, range(100))[0, 1]) < 0.3
    assert in_order(["a", "b", "a"])[0] == in_order(["a", "b", "a"])[2]


def test_levels_of_looks_that_spend_half_and_half() -> None:
    assert levels([0.5, 1.0], [0.025, 0.05]) == pytest.approx([0.025, 0.0353], abs=3e-4)
