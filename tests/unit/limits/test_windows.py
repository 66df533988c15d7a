"""Days and months follow the wall clock of the stated zone, on every day of every year."""

from __future__ import annotations

import math
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.limits.windows import Period, bounds, seconds_left, window_of

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe",
    "Pacific/Apia", "Pacific/Chatham", "America/Asuncion", "Africa/Casablanca", "Asia/Beirut",
)  # fmt: skip
times = st.floats(946_684_800.0, 2_208_988_800.0)  # 2000 … 2040


@given(now=times, zone=st.sampled_from(ZONES), period=st.sampled_from(["day", "month"]))
def test_a_time_lies_in_its_window_and_windows_follow_without_gaps(now: float, zone: str, period: Period) -> None:
    start, end = bounds(window_of(now, period, zone))
    assert start <= now < end
    assert window_of(start, period, zone) == window_of(now, period, zone)
    assert window_of(end, period, zone) != window_of(now, period, zone)
    assert bounds(window_of(end, period, zone))[0] == end
    assert window_of(start - 1, period, zone) != window_of(start, period, zone)


@given(now=times, zone=st.sampled_from(ZONES))
def test_a_day_is_the_date_on_the_wall(now: float, zone: str) -> None:
    second = math.floor(now)  # datetime would round the last tenth of a microsecond into the next day
    wall = datetime.fromtimestamp(second, ZoneInfo(zone))
    assert window_of(now, "day", zone).partition(" ")[0] == wall.date().isoformat()


@pytest.mark.parametrize(
    ("window", "hours"),
    [
        ("2026-03-29 Europe/Berlin", 23),
        ("2026-10-25 Europe/Berlin", 25),
        ("2026-10-26 Europe/Berlin", 24),
        ("2018-11-04 America/Sao_Paulo", 23),  # midnight did not exist
        ("2026-03", 31 * 24),
        ("2026-03 Europe/Berlin", 31 * 24 - 1),
    ],
)
def test_days_on_which_clocks_change_are_shorter_or_longer(window: str, hours: float) -> None:
    start, end = bounds(window)
    assert (end - start) / 3600 == hours


def test_what_never_rolls_over_has_no_end() -> None:
    assert seconds_left("", 5.0) is None
    assert seconds_left("1970-01-01", 86_000.0) == 400.0
    assert seconds_left("1970-01-01", 90_000.0) == 0.0
