"""Choosing among upstreams: the fast one gets more, the broken one none, the second one what overflows."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lockgate.gateway.upstreams.balance import EJECT_SECONDS, Load, choose, eject


def test_the_faster_one_gets_most_calls_and_the_slower_one_some() -> None:
    draw = random.Random(7)
    loads = [Load(), Load()]
    counts = [0, 0]
    now = 0.0
    for _ in range(2000):
        now += 0.01
        index = choose(loads, [0, 1], now, draw.random(), draw.random())
        assert index is not None
        counts[index] += 1
        loads[index].took(0.02 if index == 0 else 0.4, now)
    assert counts[0] > 1500


def test_a_busy_one_is_passed_over_for_an_idle_one_of_the_same_speed() -> None:
    loads = [Load(), Load()]
    for load in loads:
        load.took(0.1, 1.0)
    loads[0].busy = 5
    assert {choose(loads, [0, 1], 1.0, first / 10, 0.5) for first in range(10)} == {1}


def test_what_overflows_the_first_goes_to_the_second_and_then_nowhere() -> None:
    loads = [Load(2), Load(1)]
    order = []
    for _ in range(4):
        index = choose(loads, [0, 1], 0.0, 0.9, 0.9)
        order.append(index)
        if index is not None:
            loads[index].busy += 1
    assert order == [0, 0, 1, None]


def test_one_that_keeps_failing_is_left_out_for_a_while_and_longer_the_next_time() -> None:
    loads = [Load(), Load(), Load()]
    for _ in range(10):
        loads[2].failed(1.0)
    assert eject(loads, 1.0) == [2]
    assert {choose(loads, [0, 1, 2], 2.0, first / 10, second / 10) for first in range(10) for second in range(10)} == {
        0,
        1,
    }
    assert loads[2].ejected_until == 1.0 + EJECT_SECONDS
    for _ in range(10):
        loads[2].failed(40.0)
    eject(loads, 40.0)
    assert loads[2].ejected_until == 40.0 + 2 * EJECT_SECONDS


def test_when_all_fail_alike_none_is_left_out() -> None:
    loads = [Load(), Load()]
    for _ in range(20):
        for load in loads:
            load.failed(1.0)
    assert eject(loads, 1.0) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(1, 3), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
)
def test_whoever_is_chosen_has_room_and_somebody_is_when_anybody_has(
    states: list[tuple[int, int | None, float]], first: float, second: float
) -> None:
    loads = []
    for busy, capacity, errors in states:
        load = Load(capacity)
        load.busy, load.errors = busy, errors
        loads.append(load)
    eject(loads, 5.0)
    assert sum(load.ejected_until > 5.0 for load in loads) * 2 <= len(loads)
    chosen = choose(loads, list(range(len(loads))), 5.0, first, second)
    free = [index for index, load in enumerate(loads) if not load.is_full]
    assert (chosen in free) if free else chosen is None
