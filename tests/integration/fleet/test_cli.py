"""What `lockgate alerts` prints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from lockgate.bootstrap import open_app
from lockgate.cli import app

runner = CliRunner()


@pytest.fixture
def raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "lockgate.yaml").write_text("project: p\n")
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return open_app().alerts.raise_alert("budget:a", "budget", "warning", "a", "70 % of $50.00 [spent]").id


def test_an_alert_is_listed_resolved_and_then_only_in_the_history(raised: str) -> None:
    assert "70 % of $50.00 [spent]" in runner.invoke(app, ["alerts", "list"]).output
    assert "is resolved" in runner.invoke(app, ["alerts", "resolve", raised]).output
    assert "no open alerts" in runner.invoke(app, ["alerts", "list"]).output
    history = msgspec.json.decode(runner.invoke(app, ["alerts", "list", "--resolved", "--json"]).output)
    assert [(alert["id"], alert["resolved_at"] is not None) for alert in history] == [(raised, True)]


@pytest.mark.usefixtures("raised")
def test_an_unknown_alert_is_a_usage_error() -> None:
    shown = runner.invoke(app, ["alerts", "resolve", "alert_0"])
    assert (shown.exit_code, "no open alert 'alert_0'" in shown.output) == (2, True)
