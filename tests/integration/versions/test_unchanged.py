"""A lock of what has not changed is answered from memory, and never when it might be wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lockgate.bootstrap import open_app
from lockgate.versions import unchanged

LATER = 100.0


@pytest.fixture
def locked(acme: Path) -> Path:
    home = acme / ".lockgate"
    now = unchanged.wall_clock() + LATER
    before = unchanged.look(acme, home, now)
    result = open_app(acme).versions.lock()
    unchanged.remember(acme, home, before, result, now)
    assert unchanged.recall(acme, home, now) is not None
    return acme


def recalled(root: Path) -> bool:
    return unchanged.recall(root, root / ".lockgate", unchanged.wall_clock() + LATER) is not None


def test_the_same_answer_comes_back(locked: Path) -> None:
    found = unchanged.recall(locked, locked / ".lockgate", unchanged.wall_clock() + LATER)
    assert found is not None
    assert found.versions == open_app(locked).versions.lock(check=True).versions
    assert not found.stale


@pytest.mark.parametrize(
    "name", ["prompts/triage.md", "lockgate.yaml", "tools/orders.py", "lockgate.lock", "agents/new.v1.yaml"]
)
def test_any_file_that_changes_is_read_again(locked: Path, name: str) -> None:
    path = locked / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n# x\n")
    assert not recalled(locked)


def test_the_same_size_and_the_old_modification_time_do_not_hide_a_change(locked: Path) -> None:
    path = locked / "prompts/triage.md"
    was = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert path.stat().st_size == was.st_size
    assert path.stat().st_mtime_ns == was.st_mtime_ns
    assert not recalled(locked)


def test_what_was_touched_just_before_is_not_kept(acme: Path) -> None:
    home, now = acme / ".lockgate", unchanged.wall_clock()
    before = unchanged.look(acme, home, now)
    unchanged.remember(acme, home, before, open_app(acme).versions.lock(), now)
    assert not (home / unchanged.CACHE).exists()


def test_what_changed_while_it_was_locked_is_not_kept(acme: Path) -> None:
    home, now = acme / ".lockgate", unchanged.wall_clock() + LATER
    before = unchanged.look(acme, home, now)
    result = open_app(acme).versions.lock()
    (acme / "prompts/triage.md").write_text("Another.\n")
    unchanged.remember(acme, home, before, result, now)
    assert not (home / unchanged.CACHE).exists()


@pytest.mark.parametrize("damage", ["blob", "cache"])
def test_a_lost_bundle_or_a_broken_memory_locks_again(locked: Path, damage: str) -> None:
    home = locked / ".lockgate"
    if damage == "blob":
        digest = open_app(locked).versions.locked("triage").digest
        (home / "blobs/sha256" / digest.removeprefix("sha256:")).unlink()
    else:
        (home / unchanged.CACHE).write_text("{")
    assert not recalled(locked)
