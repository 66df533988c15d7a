"""When a call may be tried again: never where the first try may have been served, and billed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.gateway.calls.retries import LONGEST_PAUSE, Trouble, pause, seconds_to_wait, verdict


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (Trouble(sent=False), "again"),  # never left this machine
        (Trouble(sent=True), "next"),  # a timeout: maybe served
        (Trouble(sent=False, status=429), "again"),
        (Trouble(sent=False, status=503), "again"),
        (Trouble(sent=False, status=500), "again"),
        (Trouble(sent=True, status=502), "next"),
        (Trouble(sent=True, status=504), "next"),
        (Trouble(sent=False, status=401), "next"),
        (Trouble(sent=False, status=404), "next"),
        (Trouble(sent=False, status=400), "stop"),
        (Trouble(sent=False, status=422), "stop"),
    ],
)
def test_what_may_follow(trouble: Trouble, expected: str) -> None:
    assert verdict(trouble) == expected


@given(
    st.integers(1, 20),
    st.none() | st.floats(0, 1000),
    st.floats(0, 100),
    st.floats(0, 1),
)
def test_a_pause_is_neither_too_long_nor_past_the_deadline_nor_shorter_than_asked(
    retry: int, asked: float | None, left: float, chance: float
) -> None:
    wait = pause(retry, Trouble(sent=False, status=429, retry_after=asked), left=left, chance=chance)
    if wait is not None:
        assert 0 < wait <= LONGEST_PAUSE
        assert wait < left
        assert wait >= (asked or 0)


def test_pauses_grow_and_differ() -> None:
    trouble = Trouble(sent=False)
    assert [pause(retry, trouble, left=60, chance=1.0) for retry in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert pause(1, trouble, left=60, chance=0.0) == 0.125


@pytest.mark.parametrize(
    ("header", "expected"),
    [("7", 7.0), ("0.5", 0.5), (None, None), ("soon", None), ("-1", None), ("nan", None), ("inf", None),
     ("Fri, 31 Dec 1999 23:59:59 GMT", None)],
)  # fmt: skip
def test_retry_after_is_read_as_seconds(header: str | None, expected: float | None) -> None:
    assert seconds_to_wait(header) == expected
