"""`lockgate fallback`: a slice of the golden set on the backup model."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.commands import call
from tests.acceptance.judging import Models, write_project

from lockgate.bootstrap import open_app
from lockgate.evals.store import last_of_kind
from lockgate.fleet.fallbacks import Slice, fallback_command
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest, failing
from lockgate.ticks import fallbacks

AGENT = """\
agent:
  name: support
  version: 3
  owner: support
  model: {provider: fake, name: agent-2026-01-01, temperature: 0,
          fallbacks: [{provider: fake, name: backup-2026-01-01}]}
  system_prompt: prompts/v2.md
  evals:
    dataset: evals/golden/support.jsonl
    thresholds: {contains: {text: Gladly, min: 0.9}}
    fallback: {every: 7d, cases: 6}
"""


class Backup(Models):
    """The backup model answers gladly, until it is out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.in_order, self.away = True, False
        self.asked: list[str] = []

    def __call__(self, request: ModelRequest) -> object:
        self.asked.append(request.body["model"])
        if request.body["model"].startswith("backup"):
            return failing(503) if self.away else "Gladly!" if self.in_order else "¿?"
        return super().__call__(request)


@pytest.fixture
def models() -> Backup:
    return Backup()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Backup) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with FakeModelServer(models) as server:
        write_project(tmp_path, server)
        (tmp_path / "agents/support.v3.yaml").write_text(AGENT)
        with (tmp_path / "prices.yaml").open("a") as prices:
            prices.write("  backup-2026-01-01: {input: 1.0, output: 2.0}\n")
        call("lock")
        yield tmp_path


def test_no_other_model_answers_for_a_backup_that_is_away(project: Path, models: Backup) -> None:
    other = AGENT.replace("backup-2026-01-01}]", "backup-2026-01-01}, {provider: fake, name: agent-2026-01-01}]")
    (project / "agents/support.v3.yaml").write_text(other)
    models.away = True
    assert "met a failing provider" in call("fallback", "agents/support.v3.yaml", exit_code=4)
    assert set(models.asked) == {"backup-2026-01-01"}


def test_the_backup_model_is_asked_anew_each_time_and_its_verdict_is_nobody_elses(
    project: Path, models: Backup
) -> None:
    card = call("fallback", "support@3", "--json")
    assert (card["verdict"], card["kind"], card["cases"]) == ("pass", "fallback", 6)
    assert card["model_override"] == "fake:backup-2026-01-01"
    assert models.asked == ["backup-2026-01-01"] * 6
    models.in_order = False
    assert call("fallback", "support@3", "--json", exit_code=1)["verdict"] == "fail"
    assert len(models.asked) == 12
    assert "was not evaluated" in call("report", "support@3", exit_code=4)  # the version's own gate has not been run
    tagged = call("fallback", "support@3", "--tag", "late", "--json", exit_code=1)
    assert tagged["cases"] == 20
    assert "has no backup model" in call("fallback", "support@2", exit_code=2)
    assert "no case has the tag 'luck'" in call("fallback", "support@3", "--tag", "luck", exit_code=2)


def test_the_control_planes_process_says_the_verdict_by_its_exit_code(project: Path, models: Backup) -> None:
    one = Slice("prod", "support", "support@3")
    assert subprocess.run(fallback_command(one), capture_output=True, timeout=120).returncode == 0
    models.in_order = False
    assert subprocess.run(fallback_command(one), capture_output=True, timeout=120).returncode == 1


def test_the_control_plane_runs_the_slice_of_what_serves_and_keeps_one_alert(project: Path, models: Backup) -> None:
    agent = project / "agents/support.v3.yaml"
    agent.write_text(AGENT.replace("{every: 7d, cases: 6}", "{every: 1s, cases: 4, environment: dev}"))
    call("lock")
    call("deploy", "support@3", "--env", "dev")
    opened = open_app()
    watch = fallbacks(opened)

    def once() -> list[str]:
        watch.tick()
        while watch._running is not None:
            time.sleep(0.05)
            watch.tick()
        return [alert.message for alert in opened.alerts.list()]

    models.in_order = False
    [message] = once()
    assert "the backup model of support in dev does not pass its slice" in message
    assert last_of_kind(opened.control, "support", "fallback")[1] == "fail"
    models.in_order = True
    time.sleep(1.1)
    assert once() == []
    assert models.asked == ["backup-2026-01-01"] * 8
