"""New keys are split by the weight, the same way every time, and a higher weight only adds to the candidate's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockgate.rollouts.assignment import choose, position

keys = st.text(min_size=0, max_size=40)
weights = st.floats(min_value=0, max_value=100)


@given(keys, weights, weights)
def test_a_key_of_the_candidate_stays_with_it_at_every_higher_weight(key: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if choose("rollout_a", key, low) == "candidate":
        assert choose("rollout_a", key, high) == "candidate"


@given(keys)
def test_nobody_gets_the_candidate_at_0_and_everybody_at_100(key: str) -> None:
    assert choose("rollout_a", key, 0) == "stable"
    assert choose("rollout_a", key, 100) == "candidate"


def test_the_share_is_the_weight() -> None:
    taken = sum(choose("rollout_a", f"user-{number}", 25) == "candidate" for number in range(20_000))
    assert abs(taken / 20_000 - 0.25) < 0.012  # 4 standard deviations: 4 · √(.25 · .75 / 20,000)


def test_two_rollouts_choose_different_keys() -> None:
    first = {key for key in map(str, range(2000)) if choose("rollout_a", key, 50) == "candidate"}
    both = {key for key in first if choose("rollout_b", key, 50) == "candidate"}
    assert 0.4 < len(both) / len(first) < 0.6


@given(keys)
def test_a_position_is_a_percentage(key: str) -> None:
    assert 0 <= position("rollout_a", key) < 100
