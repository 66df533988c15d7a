"""The sides of a diff: files, git revisions and environments, read without touching the work tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lockgate.bootstrap import open_app
from lockgate.errors import InputError, NotFound
from lockgate.versions.revisions import project_at
from lockgate.versions.snapshots import sides, snapshot

AGENT = "agents/triage.v1.yaml"


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=120,
    )


@pytest.fixture
def repository(acme: Path) -> Path:
    git(acme, "init", "-q", "-b", "main")
    (acme / ".gitignore").write_text(".lockgate/\n")
    open_app(acme).versions.lock()
    git(acme, "add", "-A")
    git(acme, "commit", "-qm", "one")
    (acme / "prompts/triage.md").write_text("Another prompt.\n")
    return acme


def nothing(environment: str, agent: str) -> str | None:
    return None


@pytest.mark.parametrize("before", ["HEAD", "main", f"HEAD:{AGENT}"])
def test_a_git_revision_is_compared_with_the_file_as_it_stands(repository: Path, before: str) -> None:
    ((old, new),), absent = sides(open_app(repository).versions, before, None, nothing)
    assert absent is None
    assert old.version.system_prompt.startswith("Extract")
    assert new.version.system_prompt == "Another prompt.\n"
    assert (old.label, new.label) == (before, AGENT)
    assert (repository / "prompts/triage.md").read_text() == "Another prompt.\n"


def test_a_revision_of_several_agents_is_compared_agent_by_agent(repository: Path) -> None:
    text = (repository / AGENT).read_text()
    (repository / "agents/second.v1.yaml").write_text(text.replace("name: triage", "name: second"))
    open_app(repository).versions.lock()
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "two")
    (repository / "agents/third.v1.yaml").write_text(text.replace("name: triage", "name: third"))
    (repository / AGENT).write_text(text.replace("temperature: 0.1", "temperature: 0.7"))
    versions = open_app(repository).versions
    versions.lock()
    pairs, absent = sides(versions, "HEAD", None, nothing)
    assert [
        (old.version.agent, old.version.model.temperature, new.version.model.temperature) for old, new in pairs
    ] == [
        ("second", 0.1, 0.1),
        ("triage", 0.1, 0.7),
    ]
    assert absent == ["third"]
    (_, absent) = sides(versions, "HEAD", "HEAD~1", nothing)
    assert absent == ["second", "third"]
    with pytest.raises(InputError, match="of which agent"):
        sides(versions, "1", "2", nothing)
    with pytest.raises(NotFound, match="none of the agents"):
        sides(versions, "prod", None, nothing)


def test_an_environment_is_what_serves_there(repository: Path) -> None:
    versions = open_app(repository).versions
    digest = versions.locked("triage").digest
    served = {("prod", "triage"): digest}
    for ref in ("prod", "triage@prod"):
        side = snapshot(versions, ref, "triage", lambda *place: served.get(place))
        assert (side.label, side.version.behaviour_digest) == (ref, digest)
    with pytest.raises(NotFound, match="does not serve in 'staging'"):
        snapshot(versions, "staging", "triage", lambda *place: served.get(place))


def test_a_revision_that_is_not_there_is_no_option_to_git(repository: Path) -> None:
    versions = open_app(repository).versions
    for ref in ("absent", "--output=x", "HEAD~9"):
        with pytest.raises((NotFound, InputError)):
            snapshot(versions, ref, "triage", nothing)
    assert not (repository / "x").exists()


def test_links_out_of_the_tree_in_a_commit_are_not_followed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (repository / "prompts/triage.md").unlink()
    (repository / "prompts/triage.md").symlink_to("../../secret")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "link")
    with (
        pytest.raises(InputError, match=r"cannot be read|a link out of the project"),
        project_at(open_app(repository).project, "HEAD") as then,
    ):
        snapshot(open_app(then.root).versions, AGENT, "triage", nothing)
