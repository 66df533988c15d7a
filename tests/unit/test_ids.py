"""Identifiers sort by time and never repeat."""

from __future__ import annotations

import time

from lockgate.ids import new_id


def test_later_ids_sort_after_earlier_ones() -> None:
    first = new_id("run")
    time.sleep(0.002)
    assert first < new_id("run")


def test_ids_do_not_repeat() -> None:
    assert len({new_id("run") for _ in range(10_000)}) == 10_000


def test_an_id_is_its_noun_and_26_characters() -> None:
    noun, _, rest = new_id("approval").partition("_")
    assert (noun, len(rest)) == ("approval", 26)
