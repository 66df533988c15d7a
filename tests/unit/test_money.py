"""Money never loses a fraction in the spender's favour."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.money import NANO, show_usd, to_nano, to_usd

dollars = st.decimals(min_value=0, max_value=1_000_000, places=14, allow_nan=False)


@given(dollars)
def test_rounding_is_up_and_by_less_than_one_nano(usd: Decimal) -> None:
    nano = to_nano(usd)
    assert 0 <= nano - usd * NANO < 1


@given(st.integers(0, 10**15))
def test_whole_nanos_survive_the_way_out_and_back(nano: int) -> None:
    assert to_nano(Decimal(nano) / NANO) == nano


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (12_500_000_000, "$12.50"),
        (1_234_567_890_000, "$1,234.57"),
        (4_200_000, "$0.0042"),
        (310, "$0.00000031"),
        (990_000_000, "$0.99"),
    ],
)
def test_amounts_are_shown_with_two_significant_digits_at_least(nano: int, shown: str) -> None:
    assert show_usd(nano) == shown


def test_usd_is_nano_over_a_billion() -> None:
    assert to_usd(1_500_000_000) == 1.5
