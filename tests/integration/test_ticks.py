"""Budget alerts follow the hold table; a decided run is handed to a host of its version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.suspended import suspended_run

from lockgate.bootstrap import App
from lockgate.errors import LimitExceeded
from lockgate.gateway.tokens import verify
from lockgate.limits.model import Account
from lockgate.project.service import load_project
from lockgate.runtime import service as runtime
from lockgate.testing import FakeClock
from lockgate.ticks import BudgetAlerts, Reconciliation, resume_approved

AGENT = """
agent:
  name: triage
  version: 1
  model: {provider: openai, name: gpt-4o-mini-2024-07-18}
  system_prompt: triage.md
  budgets: {max_llm_calls: 7, max_usd_per_run: 0.5, max_seconds: 60}
"""
DAY = "2023-11-14"  # of FakeClock's 1,700,000,000


@pytest.fixture
def app(tmp_path: Path) -> Any:
    root = tmp_path / "shop"
    (root / "agents").mkdir(parents=True)
    (root / "lockgate.yaml").write_text("project: shop\n")
    (root / "triage.md").write_text("You sort mail.\n")
    (root / "agents/triage.v1.yaml").write_text(AGENT)
    opened = App(load_project(root), FakeClock())
    yield opened
    opened.holds.close()
    opened.control.close()


@pytest.fixture
def machines(tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[App]]:
    """Two that share the control database; each has its traces to itself."""
    monkeypatch.setenv("LOCKGATE_CONTROL_URL", postgres_database)
    opened = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lockgate.yaml").write_text("project: shop\n")
        opened.append(App(load_project(tmp_path / name), FakeClock()))
    yield opened
    for one in opened:
        one.holds.close()
        one.control.close()
        one.traces.close()


def spend(app: Any, account: str, amount: int) -> None:
    hold = app.holds.hold([Account(name=account, window=DAY, cap=100)], amount, now=app.clock())
    app.holds.settle(hold, amount)


def open_alerts(app: Any) -> list[tuple[str, str]]:
    return [(alert.subject, alert.severity) for alert in app.alerts.list() if alert.kind == "budget"]


def test_a_budget_is_a_warning_at_70_and_critical_when_used_up(app: Any) -> None:
    budgets = BudgetAlerts(app)
    spend(app, "agent:dev:triage", 69)
    budgets.tick()
    assert open_alerts(app) == []
    spend(app, "agent:dev:triage", 1)
    budgets.tick()
    budgets.tick()
    assert open_alerts(app) == [("agent:dev:triage", "warning")]
    spend(app, "agent:dev:triage", 30)
    budgets.tick()
    assert open_alerts(app) == [("agent:dev:triage", "critical")]


def test_what_is_held_counts(app: Any) -> None:
    app.holds.hold([Account(name="agent:dev:triage", window=DAY, cap=100)], 75, now=app.clock())
    BudgetAlerts(app).tick()
    assert open_alerts(app) == [("agent:dev:triage", "warning")]


def test_a_budget_of_one_run_alerts_nobody(app: Any) -> None:
    spend(app, "run:run_1", 100)
    BudgetAlerts(app).tick()
    assert open_alerts(app) == []


def test_an_alert_is_resolved_when_its_day_is_over_also_by_another_process(app: Any) -> None:
    spend(app, "agent:dev:triage", 80)
    BudgetAlerts(app).tick()
    assert open_alerts(app) == [("agent:dev:triage", "warning")]
    app.clock.advance(2 * 86400)
    app.ledger.persist(app.holds)
    BudgetAlerts(app).tick()
    assert open_alerts(app) == []


def test_a_budget_that_only_another_machine_spends_from_alerts_too_and_whoever_leads_resolves_it(
    machines: list[App],
) -> None:
    leader, other = machines
    alerts = BudgetAlerts(leader)
    spend(other, "tenant:dev:acme", 75)
    with pytest.raises(LimitExceeded):
        spend(other, "tenant:dev:acme", 30)
    other.ledger.persist(other.holds)
    alerts.tick()
    assert open_alerts(leader) == [("tenant:dev:acme", "critical")]
    BudgetAlerts(other).tick()
    assert open_alerts(other) == [("tenant:dev:acme", "critical")]
    spend(other, "tenant:dev:umbrella", 75)
    BudgetAlerts(other).tick()  # it leads meanwhile
    for one in machines:
        one.clock.advance(2 * 86400)
        one.ledger.persist(one.holds)
    alerts.tick()
    assert open_alerts(leader) == []


def test_what_one_machines_own_calls_differ_by_is_not_resolved_by_another(machines: list[App]) -> None:
    one, other = machines
    spend(one, "tenant:dev:acme", 75)  # of which there is no span
    assert [line.agrees for line in Reconciliation(one).tell()] == [False]
    assert Reconciliation(other).tell() == []
    assert [alert.kind for alert in other.alerts.list()] == ["ledger"]


def test_a_decided_run_is_handed_over_with_a_token_that_says_its_limits(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.versions.lock()
    ref = app.versions.ref("triage@1", "dev")
    waiting = suspended_run(ref, arm="candidate", depth=1)
    handed: list[Any] = []

    async def take(home: Path, run: Any, token: str) -> None:
        handed.append((home, run, token))

    monkeypatch.setattr(runtime, "resumable", lambda control: [waiting])
    monkeypatch.setattr(runtime, "resume_on_host", take)
    assert resume_approved(app) == 1
    ((home, run, token),) = handed
    assert (home, run) == (app.home, waiting)
    claims = verify(token, app.secret, now=app.clock())
    assert (claims.run_id, claims.arm, claims.depth, claims.max_llm_calls) == ("run_1", "candidate", 1, 7)
    assert claims.max_usd_nano == 500_000_000
    assert claims.expires_at > app.clock() + 60


def test_a_run_without_a_host_waits_for_the_next_tick(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app.versions.lock()
    ref = app.versions.ref("triage@1", "dev")
    waiting = suspended_run(ref)
    monkeypatch.setattr(runtime, "resumable", lambda control: [waiting])
    assert resume_approved(app) == 0  # no socket, no host
