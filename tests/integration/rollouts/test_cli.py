"""``lockgate deploy`` and ``lockgate rollout …`` from the shell's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from lockgate.bootstrap import App, open_app
from lockgate.cli import app
from lockgate.rollouts.controller import Controller
from lockgate.storage import schema

runner = CliRunner()

AGENT = """
agent:
  name: triage
  version: {version}
  model: {{provider: openai, name: gpt-4o-mini-2024-07-18}}
  system_prompt: prompts/{version}.md
  rollout:
    phases: [{{weight: 50, min_units: 5}}]
    gates: {{latency: false}}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "agents").mkdir()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "lockgate.yaml").write_text("project: shop\n")
    for version in (1, 2):
        (tmp_path / f"agents/triage.v{version}.yaml").write_text(AGENT.format(version=version))
        (tmp_path / f"prompts/{version}.md").write_text(f"You sort mail, {version}.\n")
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    opened = open_app()
    opened.versions.lock()
    yield opened
    opened.control.close()


def call(*arguments: str, code: int = 0) -> str:
    """The command's output, which exits with ``code``."""
    shown = runner.invoke(app, list(arguments))
    assert shown.exit_code == code, shown.output
    return str(shown.output)


def data(*arguments: str, code: int = 0) -> Any:
    return msgspec.json.decode(call(*arguments, "--json", code=code))


def serve(shop: App) -> None:
    now = shop.clock()
    ref = shop.versions.ref("triage@2", "dev")
    row = {"id": "h", "effective_digest": ref.effective_digest, "pid": 1, "address": "/s"}
    with shop.control.write() as connection:
        connection.execute(insert(schema.hosts).values(**row, ready_at=now, heartbeat_at=now))


def test_a_rollout_from_start_to_undo(shop: App) -> None:
    assert "is the first version in dev: it serves at once" in call("deploy", "triage@1", "--env", "dev")
    shown = call("deploy", "triage@2", "--env", "dev")
    assert "goes out in dev: 50 % → stable" in shown
    assert "lockgate rollout status triage --env dev --watch" in shown
    status = call("rollout", "status", "triage")
    assert "no host serves the candidate: it gets no traffic" in status
    assert "inconclusive: wait" in status
    assert "is paused, 50 % (1/1)" in call("rollout", "pause", "triage", "--reason", "lunch")
    assert "is 50 % (1/1)" in call("rollout", "resume", "triage")
    serve(shop)
    Controller(shop.control, shop.clock).tick()
    assert "phase 1/1 (50 %): 0 of 5 candidate units" in call("rollout", "status", "triage")
    assert "is promoted (by hand: looks good)" in call("rollout", "promote", "triage", "--reason", "looks good")
    old = shop.versions.ref("triage@1", "dev").behaviour_digest.removeprefix("sha256:")[:12]
    assert f"serves {old} again" in call("rollout", "undo", "triage", "--env", "dev", "--reason", "wrong")
    history = call("rollout", "get", "triage")
    for word in ("started", "paused", "resumed", "phase", "promoted"):
        assert word in history


def test_watching_ends_with_the_rollout_and_says_how_by_the_exit_code(shop: App) -> None:
    call("deploy", "triage@1", "--env", "dev")
    call("deploy", "triage@2", "--env", "dev")
    undecided = call("rollout", "status", "triage", "--watch", "--timeout", "0.01", code=3)
    assert "started: from triage@" in undecided
    call("rollout", "abort", "triage", "--reason", "complaints")
    assert "aborted: complaints" in call("rollout", "status", "triage", "--watch", code=1)
    retried = data("rollout", "retry", "triage")
    assert retried["status"] == "running"
    serve(shop)
    call("rollout", "promote", "triage", "--reason", "good")
    assert "promoted" in call("rollout", "status", "triage", "--watch", code=0)


def test_json_has_what_the_tables_have(shop: App) -> None:
    assert data("rollout", "list") == []
    assert data("deploy", "triage@1", "--env", "dev")["outcome"] == "stable"
    made = data("deploy", "triage@2", "--env", "dev")
    (listed,) = data("rollout", "list", "--live")
    assert listed["id"] == made["rollout"]
    shown = data("rollout", "status", made["rollout"])
    assert shown["decision"]["verdict"] == "inconclusive"
    assert [metric["metric"] for metric in shown["metrics"]] == ["errors", "cost_usd"]
    assert shown["harm_at"] == pytest.approx(3 / 0.05)


def test_what_the_policy_refuses_exits_1_with_the_remedy(shop: App) -> None:
    shown = call("deploy", "triage@1", "--env", "prod", code=1)
    assert "it has no owner; it has not been through the eval gate" in shown
    assert "→ add owner: to the agent file; lockgate eval --agent triage@" in " ".join(shown.split())
    assert "serves at once" in call("deploy", "triage@1", "--env", "prod", "--override", "first day")


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "nobody"],
        ["deploy", "triage@1", "--env", "nowhere"],
        ["rollout", "status", "nobody"],
        ["rollout", "abort", "triage"],  # no reason given
        ["rollout", "simulate", "triage@1", "--env", "dev", "--units", "100000", "--trials", "10000"],
    ],
)
@pytest.mark.usefixtures("shop")
def test_what_makes_no_sense_exits_2(arguments: list[str]) -> None:
    call(*arguments, code=2)


@pytest.mark.usefixtures("shop")
def test_simulate_says_what_the_plan_can_decide() -> None:
    shown = call("rollout", "simulate", "triage@2", "--env", "dev", "--trials", "50", "--units", "300")
    assert "plan: 50 % → stable, promote when_safe" in shown
    assert "cost_usd" in shown
    found = data("rollout", "simulate", "triage@2", "--env", "dev", "--trials", "50", "--units", "300")
    assert {one["scenario"] for one in found["forecasts"]} == {"equal", "worse"}
