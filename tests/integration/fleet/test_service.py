"""One open alert per key, on both engines."""

from __future__ import annotations

import threading

import pytest

from lockgate.errors import NotFound
from lockgate.fleet.service import Alerts
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def alerts(control: Database, clock: FakeClock) -> Alerts:
    return Alerts(control, clock)


def test_an_alert_raised_again_is_the_same_alert_brought_up_to_date(alerts: Alerts, clock: FakeClock) -> None:
    first = alerts.raise_alert("budget:a", "budget", "warning", "a", "70 % spent")
    clock.advance(60)
    again = alerts.raise_alert("budget:a", "budget", "critical", "a", "100 % spent")
    assert again.id == first.id
    assert (again.severity, again.message, again.opened_at, again.last_seen_at) == ("critical", "100 % spent", 100, 160)
    assert alerts.list() == [again]


def test_a_resolved_alert_opens_anew(alerts: Alerts, clock: FakeClock) -> None:
    first = alerts.raise_alert("k", "kind", "info", "s", "m")
    assert alerts.resolve("k")
    assert not alerts.resolve("k")
    assert alerts.list() == []
    clock.advance(1)
    second = alerts.raise_alert("k", "kind", "info", "s", "m")
    assert second.id != first.id
    assert [alert.id for alert in alerts.list(resolved=True)] == [second.id, first.id]


def test_an_alert_is_closed_by_hand_by_its_id(alerts: Alerts, clock: FakeClock) -> None:
    raised = alerts.raise_alert("k", "kind", "info", "s", "m")
    clock.advance(5)
    assert alerts.resolve_by_id(raised.id).resolved_at == 105
    with pytest.raises(NotFound, match="no open alert"):
        alerts.resolve_by_id(raised.id)


def test_the_severest_comes_first_then_the_newest(alerts: Alerts, clock: FakeClock) -> None:
    for key, severity in (("i", "info"), ("w", "warning"), ("c", "critical"), ("w2", "warning")):
        alerts.raise_alert(key, "kind", severity, "s", "m")  # type: ignore[arg-type]
        clock.advance(1)
    assert [alert.key for alert in alerts.list()] == ["c", "w2", "w", "i"]
    assert [alert.key for alert in alerts.list(limit=2)] == ["c", "w2"]


def test_many_at_once_open_one(alerts: Alerts) -> None:
    threads = [threading.Thread(target=alerts.raise_alert, args=("k", "kind", "info", "s", "m")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(alerts.list(resolved=True)) == 1
