"""lockgate.lock: one text for one content, and clear words for what is not one."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import Conflict, InputError
from lockgate.versions import lockfile
from lockgate.versions.lockfile import one_at_a_time, parse_lock, read_lock, render_lock, write_lock
from lockgate.versions.model import LockedVersion


def entry(agent: str = "a", version: int = 1, **more: str) -> LockedVersion:
    return LockedVersion(
        agent=agent,
        version=version,
        file=f"agents/{agent}.yaml",
        digest="sha256:" + "0" * 64,
        settings="sha256:" + "1" * 64,
        parts={"prompt": "sha256:p", **more},
        models={"ollama/llama3.1:70b": "sha256:m"},
    )


_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(st.lists(st.tuples(_names, st.integers(0, 10**6), _names), unique_by=lambda row: row[:2], max_size=5))
def test_what_is_written_is_read_again_whatever_the_names(rows: list[tuple[str, int, str]]) -> None:
    entries = [msgspec.structs.replace(entry(agent, version), parts={part: "x"}) for agent, version, part in rows]
    expected = sorted(entries, key=lambda one: (one.agent, one.version))
    assert parse_lock(render_lock(entries)) == expected
    assert render_lock(entries[::-1]) == render_lock(entries)


def test_no_lock_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read_lock(tmp_path) == []


def test_a_line_of_the_file_is_a_part_of_a_version() -> None:
    before, after = render_lock([entry()]).split("\n"), render_lock([entry(prompt="sha256:q")]).split("\n")
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [
        ('prompt = "sha256:p"', 'prompt = "sha256:q"')
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = 1\n<<<<<<< HEAD\n", "lockgate.lock:2: a merge conflict"),
        ("format = 1\n[[version]]\nagent = ", "not a lock file"),
        ("format = 1\n[[version]]\nagent = 'a'\n", "not a lock file"),
        ("format = 9\n", "format is 9"),
        ("", "format is None"),
    ],
)
def test_a_broken_lock_file_says_how_to_mend_it(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_lock(text)
    assert words in caught.value.message
    assert "lock" in (caught.value.remedy or "")


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(tmp_path, [entry()])
    before = (tmp_path / "lockgate.lock").read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lockfile.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_lock(tmp_path, [entry("b")])
    assert [path.name for path in tmp_path.iterdir()] == ["lockgate.lock"]
    assert (tmp_path / "lockgate.lock").read_text() == before


def test_the_second_of_two_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(60)
        with one_at_a_time(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_at_a_time(tmp_path):
        inside.set()
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_waiting_ends_with_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockfile, "WAIT_SECONDS", 0.0)
    with one_at_a_time(tmp_path), pytest.raises(Conflict, match="another `lockgate lock`"), one_at_a_time(tmp_path):
        pass
