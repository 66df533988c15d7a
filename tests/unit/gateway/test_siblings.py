"""What the workers of a machine tell one another of breakers."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from lockgate.gateway.notices import alert_key
from lockgate.gateway.siblings import Siblings, What, left_open

UPSTREAM: What = ("upstream", "dev", "openai", "https://one.example/v1")


class Worker:
    def __init__(self, folder: Path, index: int) -> None:
        self.heard: list[tuple[What, bool]] = []
        self.siblings = Siblings(folder, index, lambda what, is_open, at: self.heard.append((what, is_open)))


def test_the_others_hear_and_the_teller_does_not(tmp_path: Path) -> None:
    teller, other = Worker(tmp_path, 0), Worker(tmp_path, 1)
    teller.siblings.tell(UPSTREAM, True)
    for worker in (teller, other):
        worker.siblings.look()
    assert (teller.heard, other.heard) == ([], [(UPSTREAM, True)])


def test_what_was_left_open_is_known_once(tmp_path: Path) -> None:
    one, other = Worker(tmp_path, 0), Worker(tmp_path, 1)
    one.siblings.tell(UPSTREAM, True)
    one.siblings.tell(("agent", "dev", "triage"), True)
    other.siblings.tell(("agent", "dev", "triage"), False)
    (tmp_path / "2.json").write_text("half of")
    assert [alert_key(what) for what in left_open(tmp_path)] == ["breaker:dev:openai:https://one.example/v1"]
    assert left_open(tmp_path) == []


def test_what_is_open_is_told_again_for_whoever_was_not_there_and_what_closed_once(tmp_path: Path) -> None:
    teller, other = Worker(tmp_path, 0), Worker(tmp_path, 1)
    teller.siblings.tell(UPSTREAM, True)
    other.siblings.look()
    other.siblings.look()
    teller.siblings.tell(UPSTREAM, False)
    other.siblings.look()
    other.siblings.look()
    assert [is_open for _, is_open in other.heard] == [True, True, False]


def test_the_newest_word_counts_also_when_it_is_ones_own(tmp_path: Path) -> None:
    teller, other = Worker(tmp_path, 0), Worker(tmp_path, 1)
    teller.siblings.tell(UPSTREAM, True)
    other.siblings.tell(UPSTREAM, False)
    for worker in (teller, other):
        worker.siblings.look()
    assert (teller.heard, other.heard) == ([(UPSTREAM, False)], [])


def test_a_worker_in_the_place_of_another_knows_what_that_one_told(tmp_path: Path) -> None:
    Worker(tmp_path, 0).siblings.tell(UPSTREAM, True)
    again = Worker(tmp_path, 0)
    again.siblings.look()
    assert again.heard == [(UPSTREAM, True)]


def test_what_workers_of_an_earlier_supervisor_told_and_what_is_no_file_of_theirs_is_no_news(tmp_path: Path) -> None:
    former = {"family": os.getppid() + 1, "told": [[UPSTREAM, True, 1.0]]}
    (tmp_path / "0.json").write_bytes(msgspec.json.encode(former))
    (tmp_path / "1.json").write_bytes(b"{")
    other = Worker(tmp_path, 2)
    other.siblings.look()
    assert other.heard == []
