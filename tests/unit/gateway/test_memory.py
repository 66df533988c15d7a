"""What a worker gives back of its memory."""

from __future__ import annotations

import pytest

from lockgate.gateway import memory
from lockgate.gateway.memory import Memory, resident


def test_memory_is_given_back_above_the_mark_and_not_more_often_than_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    tidied = Memory()
    tidied._trim = asked.append
    monkeypatch.setattr(memory, "ABOVE", 1 << 60)
    tidied.tidy()
    assert asked == []
    tidied._due = 0.0
    monkeypatch.setattr(memory, "ABOVE", 0)
    tidied.tidy()
    tidied.tidy()
    assert asked == [0]


def test_the_memory_of_this_process_is_known() -> None:
    assert 1 << 20 < resident() < 1 << 40
