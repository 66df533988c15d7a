"""The commits a version was locked from are beside its digest, and lead to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import select

from lockgate.bootstrap import open_app
from lockgate.errors import InputError
from lockgate.storage.engine import Database
from lockgate.storage.schema import version_commits
from lockgate.versions.commits import record_commit, versions_at
from lockgate.versions.store import VersionRow, save_versions


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x", "--allow-empty")
    return git(root, "rev-parse", "HEAD")


def test_each_commit_a_version_was_locked_from_finds_it(acme: Path) -> None:
    git(acme, "init", "-q")
    (acme / ".gitignore").write_text(".lockgate/\n")
    first = commit(acme)
    versions = open_app(acme).versions
    digest = versions.lock().versions[0].digest
    second = commit(acme)
    assert versions.lock().versions[0].digest == digest
    for name in (first, first[:7], second, "HEAD"):
        assert [row.behaviour_digest for row in versions.at_commit(name)] == [digest]
    assert versions.at_commit("0" * 40) == []
    with pytest.raises(InputError, match="no commit"):
        versions.at_commit("no-such-branch")
    names = [
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
        for entry in json.loads((acme / ".lockgate/index.json").read_text())["manifests"]
    ]
    assert f"triage.{digest[7:19]}.git-{second[:12]}" in names


def test_what_was_locked_from_a_changed_tree_has_no_commit(acme: Path) -> None:
    git(acme, "init", "-q")
    (acme / ".gitignore").write_text(".lockgate/\n")
    head = commit(acme)
    (acme / "prompts/triage.md").write_text("Another.\n")
    versions = open_app(acme).versions
    versions.lock()
    assert versions.at_commit(head) == []


def test_a_project_that_the_repository_around_it_ignores_is_in_none_of_its_commits(acme: Path) -> None:
    git(acme.parent, "init", "-q")
    (acme.parent / ".gitignore").write_text(f"/{acme.name}/\n")
    head = commit(acme.parent)
    versions = open_app(acme).versions
    assert versions.lock().versions
    assert versions.at_commit(head) == []


def test_a_commit_is_recorded_once(control: Database) -> None:
    row = VersionRow(
        behaviour_digest="sha256:a",
        agent="a",
        file_version=1,
        created_at=1.0,
        git_commit=None,
        source="agents/a.yaml",
        settings_digest="sha256:s",
    )
    with control.write() as connection:
        save_versions(connection, [row])
        record_commit(connection, ["sha256:a"], "c" * 40, 2.0)
        record_commit(connection, ["sha256:a"], "c" * 40, 3.0)
    with control.read() as connection:
        assert [one.git_commit for one in versions_at(connection, "cccccccc")] == ["c" * 40]
        assert list(connection.execute(select(version_commits.c.seen_at)).scalars()) == [2.0]
