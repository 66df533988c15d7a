"""What `lockgate budgets` prints."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from lockgate.bootstrap import open_app
from lockgate.cli import app
from lockgate.limits.model import Account
from lockgate.limits.windows import day_of
from lockgate.money import to_nano

runner = CliRunner()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lockgate.yaml").write_text("project: p\n")
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def today(project: Path) -> str:
    now = time.time()
    day = day_of(now)
    agent = Account(name="agent:prod:triage", window=day, cap=to_nano(50))
    run = Account(name="run:run_1", window="", cap=10, unit="calls")
    holds = open_app().holds
    holds.settle(holds.hold([agent, run], to_nano(34.1), now=now), to_nano(34.1))
    holds.hold([agent], to_nano("1.4"), now=now)
    holds.hold([Account(name="tenant:prod:acme", window=day, cap=None)], 5, now=now)
    holds.close()
    return day


def test_what_is_spent_held_and_left_of_a_budget(today: str) -> None:
    shown = runner.invoke(app, ["budgets"]).output
    [line] = [line for line in shown.splitlines() if line.startswith("agent:prod:triage")]
    assert line.split() == ["agent:prod:triage", today, "$34.10", "$1.40", "$14.50", "$50.00", "71", "%"]
    assert "run:run_1" not in shown
    assert "tenant:prod:acme" in shown


def test_json_is_in_usd_or_in_the_accounts_unit(today: str) -> None:
    rows = msgspec.json.decode(runner.invoke(app, ["budgets", "--json", "--runs"]).output)
    by_account = {row["account"]: row for row in rows}
    agent = by_account["agent:prod:triage"]
    assert [agent[f"{name}_usd"] for name in ("cap", "settled", "held", "left")] == [50.0, 34.1, 1.4, 14.5]
    assert agent["used_percent"] == pytest.approx(71.0)
    run = by_account["run:run_1"]
    assert (run["unit"], run["cap"], run["settled"], run["left"]) == ("calls", 10, 1, 9)


@pytest.mark.usefixtures("today")
def test_one_agents_budgets_alone() -> None:
    rows = msgspec.json.decode(runner.invoke(app, ["budgets", "--json", "--agent", "triage"]).output)
    assert [row["account"] for row in rows] == ["agent:prod:triage"]


@pytest.mark.usefixtures("today")
def test_an_agent_that_does_not_exist_is_an_error() -> None:
    shown = runner.invoke(app, ["budgets", "--agent", "traige"])
    assert (shown.exit_code, "no agent 'traige'" in shown.output) == (2, True)


def test_a_project_that_never_ran_has_no_table_made_for_it(project: Path) -> None:
    shown = runner.invoke(app, ["budgets"])
    assert (shown.exit_code, shown.output) == (0, "Nothing is spent yet today.\n")
    assert not (project / ".lockgate" / "holds.table").exists()
