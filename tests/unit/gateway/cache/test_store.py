"""The file that workers share: bounded, shared, and never in the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lockgate.gateway.cache import keys
from lockgate.gateway.cache.store import Answers, Kept


def kept(body: bytes, *, until: float = 100.0, cost: int = 5) -> Kept:
    return Kept(body, "application/json", cost, 0.0, until)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def test_what_one_worker_keeps_another_finds_until_its_time(path: Path) -> None:
    one, other = Answers(path), Answers(path)
    one.put(b"k", kept(b"body"), 1.0)
    assert other.get(b"k", 2.0) == kept(b"body")
    assert other.get(b"k", 100.0) is None
    assert one.get(b"k", 100.0) is None


def test_what_is_kept_only_its_owner_may_read(path: Path) -> None:
    answers = Answers(path)
    answers.put(b"k", kept(b"body"), 1.0)
    found = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert found == {"cache.db": 0o600, "cache.db-wal": 0o600, "cache.db-shm": 0o600}


def test_it_stays_within_its_bounds_and_lets_go_of_what_was_used_longest_ago(path: Path) -> None:
    answers = Answers(path, max_bytes=64_000, memory_bytes=16_000)
    for number in range(300):
        answers.put(b"%d" % number, kept(b"x" * 1000, until=1e9), float(number))
    count, size = answers.size()
    assert size <= 66_000
    assert count >= 50
    assert answers.get(b"0", 301.0) is None
    assert answers.get(b"299", 301.0) is not None
    assert answers._in_memory <= 16_000


def test_a_file_that_is_none_is_begun_anew(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be looked at" * 100)
    answers = Answers(path)
    answers.put(b"k", kept(b"body"), 1.0)
    answers.close()
    assert Answers(path).get(b"k", 2.0) == kept(b"body")


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    answers = Answers(tmp_path)  # a folder
    answers.put(b"k", kept(b"body"), 1.0)
    assert answers.get(b"k", 1.0) is None
    assert answers.size() == (0, 0)


def test_near_questions_come_nearest_first_and_only_of_their_scope(path: Path) -> None:
    answers = Answers(path)

    def unit(*parts: float) -> np.ndarray:
        vector = np.array(parts, dtype=np.float32)
        return vector / np.linalg.norm(vector)

    answers.put_question(b"s", b"1", "one", unit(1, 0), 100.0)
    answers.put_question(b"s", b"2", "two", unit(1, 0.2), 100.0)
    answers.put_question(b"s", b"3", "three", unit(0, 1), 100.0)
    answers.put_question(b"t", b"4", "four", unit(1, 0), 100.0)
    answers.put_question(b"s", b"5", "five", unit(1, 0, 0), 100.0)  # of another embedder
    assert [near.text for near in answers.near(b"s", unit(1, 0), 0.9, 1.0)] == ["one", "two"]
    assert answers.near(b"s", unit(1, 0), 0.9, 100.0) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("refund order A-17", "please refund order a-17", True),
        ("refund order A-17", "refund order A-18", False),
        ("is it allowed", "is it not allowed", False),
        ("10 days", "10 days?", True),
        ("with milk", "without milk", False),
    ],
)
def test_likeness_alone_is_not_enough(one: str, other: str, same: bool) -> None:
    assert keys.sure(one, other) is same


def test_a_stream_that_broke_off_or_called_a_tool_is_not_kept() -> None:
    assert keys.storable_stream(b'data: {"choices":[]}\n\ndata: [DONE]\n\n')
    assert not keys.storable_stream(b'data: {"choices":[]}\n\n')
    assert not keys.storable_stream(b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\ndata: [DONE]\n\n')
    assert not keys.storable_stream(b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n')
