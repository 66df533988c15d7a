"""The fake clock moves when it is told to."""

from __future__ import annotations

import pytest

from lockgate.testing import FakeClock


def test_it_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(100.0)
    assert (clock(), clock()) == (100.0, 100.0)
    clock.advance(2.5)
    assert clock() == 102.5


def test_it_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        FakeClock().advance(-1)
