"""A served model that is taken away soon has an alert, before the day."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lockgate.bootstrap import App
from lockgate.following import retirements
from lockgate.project.service import load_project
from lockgate.settings.model import Scope
from lockgate.testing import FakeClock

AGENT = """
agent:
  name: triage
  version: {version}
  model: {{provider: openai, name: {model}, fallbacks: [{{provider: openai, name: stays-1}}]}}
  system_prompt: triage.md
"""
DAY = 86_400.0


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    (tmp_path / "agents").mkdir()
    (tmp_path / "lockgate.yaml").write_text("project: shop\ndeprecations: ends.yaml\n")
    (tmp_path / "ends.yaml").write_text("models: {goes-1: {retires: 2027-01-31, replacement: stays-1}}\n")
    (tmp_path / "triage.md").write_text("You sort mail.\n")
    for version, model in ((1, "goes-1"), (2, "stays-1")):
        (tmp_path / f"agents/triage.v{version}.yaml").write_text(AGENT.format(version=version, model=model))
    opened = App(load_project(tmp_path), FakeClock(datetime(2026, 12, 31, tzinfo=UTC).timestamp()))
    opened.versions.lock()
    yield opened
    opened.control.close()


def standing(app: Any) -> list[tuple[str, str]]:
    return [(one.severity, one.subject) for one in app.alerts.list() if one.kind == "retirement"]


def test_an_alert_stands_from_thirty_days_before_and_is_critical_in_the_last_week(app: Any) -> None:
    app.rollouts.deploy("triage@1", "dev")
    watch = retirements(app)
    watch.tick()
    assert standing(app) == []  # 31 days
    app.clock.advance(DAY)
    watch.tick()
    watch.tick()
    assert standing(app) == [("warning", "triage in dev")]
    (alert,) = app.alerts.list()
    assert "'goes-1' is retired on 2027-01-31, in 30 days; move to stays-1" in alert.message
    app.clock.advance(23 * DAY)
    watch.tick()
    assert standing(app) == [("critical", "triage in dev")]


def test_the_alert_is_over_when_another_version_serves(app: Any) -> None:
    app.clock.advance(5 * DAY)
    app.rollouts.deploy("triage@1", "dev")
    watch = retirements(app)
    watch.tick()
    assert len(standing(app)) == 1
    done = app.rollouts.deploy("triage@2", "dev", direct=True)
    assert done.outcome == "stable"
    watch.tick()
    assert standing(app) == []


def test_a_setting_says_how_long_before(app: Any) -> None:
    app.rollouts.deploy("triage@1", "dev")
    app.settings.set("alert.retirement_days", 60, Scope(agent="triage"), actor="cli:ann")
    with app.control.read() as connection:
        app.following.refresh(connection)
    retirements(app).tick()
    assert standing(app) == [("warning", "triage in dev")]


def test_a_muted_kind_is_not_raised(app: Any) -> None:
    app.clock.advance(5 * DAY)
    app.rollouts.deploy("triage@1", "dev")
    app.settings.set("alert.mute", ["retirement"], Scope(), actor="cli:ann")
    with app.control.read() as connection:
        app.following.refresh(connection)
    retirements(app).tick()
    assert standing(app) == []
