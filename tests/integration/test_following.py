"""What the control plane follows: settings, files, and the alerts that say what is not in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.integration.suspended import suspended_run

from lockgate.bootstrap import App
from lockgate.following import Following, on_older_providers
from lockgate.project.service import load_project
from lockgate.runtime import service as runtime
from lockgate.settings.model import Scope
from lockgate.storage import schema
from lockgate.testing import FakeClock
from lockgate.ticks import BudgetAlerts, resume_approved

PROJECT = """
project: shop
prices: prices.yaml
providers: {fast: {kind: openai, base_url: "http://one/v1"}}
environments:
  dev: {agents: {triage: {version: 1, budgets: {daily_usd: 5}}}}
"""
AGENT = """
agent:
  name: triage
  version: 1
  model: {provider: fast, name: m-2026-01-01}
  system_prompt: triage.md
  budgets: {daily_usd: 2, daily_tokens: 1000}
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    (tmp_path / "agents").mkdir()
    (tmp_path / "lockgate.yaml").write_text(PROJECT)
    (tmp_path / "prices.yaml").write_text("fast: {'*': {input: 1.0, output: 2.0}}\n")
    (tmp_path / "triage.md").write_text("You sort mail.\n")
    (tmp_path / "agents/triage.v1.yaml").write_text(AGENT)
    opened = App(load_project(tmp_path), FakeClock())
    opened.versions.lock()
    opened.rollouts.deploy("triage@1", "dev")
    yield opened
    opened.holds.close()
    opened.control.close()


def edit(app: Any, old: str, new: str, name: str = "lockgate.yaml") -> None:
    path = app.project.root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def messages(app: Any) -> list[str]:
    return [one.message for one in app.alerts.list() if one.kind == "settings"]


def daily_usd(app: Any) -> list[float | None]:
    """As the deployment and as the route that gateways read have it."""
    found = []
    with app.control.read() as connection:
        for table in (schema.deployments, schema.routes):
            found.append(connection.execute(select(table.c.settings)).scalar_one()["daily_usd"])
    return found


def test_a_budget_in_the_file_is_followed_and_written_down(app: Any) -> None:
    following = Following(app)
    following.tick()
    assert daily_usd(app) == [5, 5]
    edit(app, "daily_usd: 5", "daily_usd: 50")
    following.tick()
    assert daily_usd(app) == [50, 50]
    edit(app, ", budgets: {daily_usd: 50}", "")
    following.tick()
    assert daily_usd(app) == [2, 2]  # the agent file's
    with app.control.read() as connection:
        rows = connection.execute(select(schema.audit.c.actor, schema.audit.c.action)).all()
    assert rows[-2:] == [("lockgate.yaml", "settings"), ("lockgate.yaml", "settings")]


def test_what_serves_by_older_providers_has_an_alert_until_it_is_deployed_again(app: Any) -> None:
    Following(app).tick()
    assert messages(app) == []
    edit(app, "http://one/v1", "http://two/v1")
    Following(app).tick()
    (message,) = messages(app)
    assert "triage in dev is served by the provider fast as it was deployed" in message
    assert "lockgate deploy triage@" in message
    edit(app, "http://two/v1", "http://one/v1")
    Following(app).tick()
    assert messages(app) == []
    edit(app, "http://one/v1", "http://two/v1")
    Following(app).tick()
    assert on_older_providers(app)
    app.rollouts.deploy("triage@1", "dev", direct=True)  # it has no host yet, so that nobody is cut off
    Following(app).tick()
    assert messages(app) == []


def test_what_a_branch_gives_its_providers_has_no_such_alert(app: Any) -> None:
    edit(app, "project: shop", "project: shop\ngitops: {environments: [dev]}")
    edit(app, "http://one/v1", "http://two/v1")
    Following(app).tick()
    assert messages(app) == []


def test_what_a_git_branch_says_of_an_environment_is_not_taken_from_the_file(app: Any) -> None:
    following = Following(app)
    edit(app, "project: shop", "project: shop\ngitops: {environments: [dev]}")
    edit(app, "daily_usd: 5", "daily_usd: 50")
    following.tick()
    assert daily_usd(app) == [5, 5]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("lockgate.yaml", "daily_usd: 5", "daily_usd: lots"), ("prices.yaml", "input: 1.0", "input: lots")],
)
def test_a_broken_file_has_an_alert_until_it_is_good_again(app: Any, name: str, old: str, new: str) -> None:
    following = Following(app)
    following.tick()
    edit(app, old, new, name)
    following.tick()
    following.tick()
    (message,) = messages(app)
    assert "'lots'" in message
    assert "the last good file stays in force" in message
    assert Following(app).tick() is None  # another process after a restart
    assert len(messages(app)) == 1
    edit(app, new, old, name)
    following.tick()
    assert messages(app) == []


def test_an_alert_of_an_earlier_process_is_resolved_when_the_file_is_good(app: Any) -> None:
    app.alerts.raise_alert("settings:file:prices", "settings", "warning", "lockgate.yaml", "broken")
    Following(app).tick()
    assert messages(app) == []


def test_a_setting_reaches_prices_and_budget_alerts(app: Any) -> None:
    following = Following(app)
    app.settings.set("price", {"input": 7, "output": 7}, Scope(model="fast/m-2026-01-01"), actor="cli:ann")
    app.settings.set("alert.budget_percent", 10, Scope(agent="triage"), actor="cli:ann")
    following.tick()
    assert app.prices.price("openai", "fast", "m-2026-01-01").base.input == 7_000_000_000
    from lockgate.limits.model import Account
    from lockgate.limits.windows import day_of

    account = Account(name="agent:dev:triage", window=day_of(app.clock()), cap=5_000_000_000)
    hold = app.holds.hold([account], 600_000_000, now=app.clock())
    app.holds.settle(hold, 600_000_000)
    BudgetAlerts(app).tick()
    assert [one.severity for one in app.alerts.list() if one.kind == "budget"] == ["warning"]


def test_a_killed_agents_suspended_runs_wait(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = app.versions.ref("triage@1", "dev")
    waiting = suspended_run(ref)
    handed: list[str] = []

    async def take(home: Any, run: Any, token: str) -> None:
        handed.append(run.run_id)

    monkeypatch.setattr(runtime, "resumable", lambda control: [waiting])
    monkeypatch.setattr(runtime, "resume_on_host", take)
    following = Following(app)
    app.settings.set("kill", True, Scope(agent="triage"), actor="cli:ann", reason="x")
    following.tick()
    assert (resume_approved(app), handed) == (0, [])
    app.settings.unset("kill", Scope(agent="triage"), actor="cli:ann")
    following.tick()
    assert (resume_approved(app), handed) == (1, ["run_1"])
