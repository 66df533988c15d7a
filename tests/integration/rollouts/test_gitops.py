"""A git branch says what serves: real git, real versions, no processes."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from lockgate.errors import Unauthenticated
from lockgate.project import lastgood
from lockgate.project.service import load_project
from lockgate.rollouts.gitops import GitOps
from lockgate.rollouts.gitops_metrics import GitOpsMetrics
from lockgate.storage.schema import resolved_providers
from lockgate.telemetry.metrics import Registry

ENVIRONMENTS = """
gitops: {{repository: ., branch: main, webhook_secret: "${{env:HOOK}}", revert_drift: {revert}, poll: 1}}
environments:
  dev:
    agents:
      triage: {{version: {version}}}
"""


class Git:
    """The project as a repository, and the control plane that follows it."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.root: Path = world.project.root
        (self.root / ".gitignore").write_text(".lockgate/\n")
        self("init", "--quiet", "--initial-branch=main")
        self.head = (self.root / "lockgate.yaml").read_text()
        self.follower: GitOps | None = None
        self.alerts: dict[str, str] = {}

    def __call__(self, *arguments: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.root, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    def wants(self, version: int, revert: str = "false") -> None:
        self.commit(self.head + ENVIRONMENTS.format(version=version, revert=revert))

    def commit(self, text: str) -> None:
        (self.root / "lockgate.yaml").write_text(text)
        self("add", "-A")
        self("commit", "--quiet", "-m", "change")

    def tick(self) -> str:
        """One round; the agent's status and message."""
        if self.follower is None:
            world = self.world
            project = load_project(self.root)
            self.follower = GitOps(world.control, world.clock, project=project, blobs=world.versions.blobs)
        self.world.advance(2)
        self.follower.tick(lambda key, subject, message: self.alerts.update({key: message}))
        (state,) = self.follower.states()
        return f"{state.status}: {state.message}"

    @property
    def stable(self) -> str:
        (deployed,) = self.world.rollouts.deployments("dev")
        return str(deployed.stable.effective_digest)


@pytest.fixture
def git(world: Any) -> Git:
    world.serve(1, 2)
    return Git(world)


def test_the_branch_brings_a_version_out_and_a_revert_takes_the_warm_one_back(git: Git, world: Any) -> None:
    git.wants(1)
    assert git.tick().startswith("Progressing")
    assert git.tick().startswith("Synced")

    git.wants(2)
    assert git.tick().startswith("Progressing")
    live = world.rollouts.get("triage", "dev")
    assert live.created_by == "gitops"
    world.rollouts.promote(live.id, reason="good", by="test")
    assert git.tick().startswith("Synced")
    assert git.stable == world.ref(2).effective_digest

    git("revert", "--no-edit", "HEAD")
    git.tick()
    assert git.stable == world.ref(1).effective_digest
    assert git.tick().startswith("Synced")


def test_an_undo_by_hand_holds_until_something_else_is_wanted(git: Git, world: Any) -> None:
    git.wants(1)
    git.tick()
    git.wants(2)
    git.tick()
    world.rollouts.promote("triage", "dev", reason="good", by="test")
    git.tick()

    world.rollouts.undo("triage", "dev", reason="wrong refunds", by="test")
    for _ in range(3):
        told = git.tick()
        assert told.startswith("Degraded: triage@")
        assert "once the branch has wanted another version in between" in told
    assert git.stable == world.ref(1).effective_digest

    git.wants(1)
    assert git.tick().startswith("Synced")
    git.wants(2)
    assert git.tick().startswith("Progressing")


def test_an_agent_that_is_degraded_is_told_of_until_it_is_well(git: Git, world: Any) -> None:
    git.wants(1)
    git.tick()
    git.wants(2)
    git.tick()
    assert not any(git.alerts.values())
    world.rollouts.abort("triage", "dev", reason="not today", by="test")
    told = git.tick()
    assert git.alerts["gitops:dev:triage"] == told.removeprefix("Degraded: ")
    git.wants(1)
    assert git.tick().startswith("Synced")
    assert not any(git.alerts.values())


def test_a_broken_commit_changes_nothing_and_says_why(git: Git, world: Any) -> None:
    git.wants(1)
    git.tick()
    git.tick()
    git.commit("project: shop\nenvironments: {dev: {agents: {triage: {version: 9}}}}\n")
    assert git.tick().startswith("Synced")
    assert git.follower is not None
    assert "no version 9" in git.follower.source().error
    assert git.stable == world.ref(1).effective_digest

    git("revert", "--no-edit", "HEAD")
    git.tick()
    assert git.follower.source().error == ""


def test_a_commit_that_cannot_be_read_is_not_taken_for_the_file_of_this_machine(
    git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git.wants(1)
    git.tick()
    lastgood.remember(load_project(git.root))
    monkeypatch.setenv(lastgood.ENVIRONMENT, "1")  # as the control plane of `lockgate up` has it
    git.commit((git.root / "lockgate.yaml").read_text() + "projekt: x\n")
    git.tick()
    assert git.follower is not None
    assert "unknown key 'projekt'" in git.follower.source().error


@pytest.mark.parametrize("revert", ["false", "true"])
def test_drift_by_hand_is_shown_and_reverted_only_when_asked(git: Git, world: Any, revert: str) -> None:
    git.wants(1, revert)
    git.tick()
    git.tick()
    world.rollouts.deploy("triage@2", "dev", by="test")
    world.rollouts.promote("triage", "dev", reason="by hand", by="test")
    told = git.tick()
    assert git.stable == world.ref(1 if revert == "true" else 2).effective_digest
    assert revert == "true" or told.startswith("OutOfSync: changed by hand")


def test_metrics_say_where_each_agent_is_and_count_what_fails(git: Git, world: Any) -> None:
    git.wants(1)
    git.tick()
    git.tick()
    assert git.follower is not None
    registry = Registry()
    metrics = GitOpsMetrics(registry, git.follower)

    def lines() -> list[str]:
        metrics.refresh()
        return registry.render().splitlines()

    at = '{environment="dev",agent="triage",status='
    assert f'lockgate_gitops_agent_status{at}"Synced"}} 1' in lines()
    assert f'lockgate_gitops_agent_status{at}"Degraded"}} 0' in lines()
    assert f"lockgate_gitops_last_reconcile_timestamp_seconds {world.clock():.0f}" in lines()
    assert "lockgate_gitops_commit_broken 0" in lines()

    git.commit("project: [")
    git.tick()
    assert "lockgate_gitops_commit_broken 1" in lines()
    assert 'lockgate_gitops_errors_total{kind="commit"} 1' in lines()
    assert f'lockgate_gitops_agent_status{at}"Synced"}} 1' in lines()

    git.commit(git.head + "gitops: {poll: 1}\nenvironments: {dev: {}}\n")
    git.follower.ask()
    world.advance(2)
    git.follower.tick()
    assert not [line for line in lines() if "triage" in line]


def test_a_webhook_only_wakes_and_only_when_it_is_signed(git: Git, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "s3cret")
    git.wants(1)
    git.tick()
    assert git.follower is not None
    body = msgspec.json.encode({"ref": "refs/heads/main"})
    with pytest.raises(Unauthenticated):
        git.follower.wake(body, "sha256=00")
    world.clock.advance(0.1)
    git.follower.wake(body, "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest())
    assert git.follower.source().woken_at > git.follower.source().checked_at


def test_a_version_keeps_the_providers_that_its_commit_names_though_the_file_here_says_others(
    git: Git, world: Any
) -> None:
    here = git.head + ENVIRONMENTS.format(version=1, revert="false")
    git.commit(here + "providers: {openai: {kind: openai, base_url: 'https://models.example/v1'}}\n")
    (git.root / "lockgate.yaml").write_text(here)  # the control plane's own file is not the branch's
    git.tick()
    effective = git.stable
    assert effective != world.ref(1).effective_digest
    known = world.versions.providers_as_deployed(effective)
    assert known["openai"].base_url == "https://models.example/v1"
    with world.control.write() as connection:  # what does not give the digest does not count
        connection.execute(
            update(resolved_providers)
            .where(resolved_providers.c.effective_digest == effective)
            .values(providers={"openai": {**msgspec.to_builtins(known["openai"]), "base_url": "https://other.example"}})
        )
    assert world.versions.providers_as_deployed(effective) == {}
