"""Background work: what fails backs off and does not stop the rest; what has one master runs on the leader only."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from lockgate.ticks import Loop, Tick


def test_a_tick_that_fails_does_not_stop_the_others_and_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    def broken() -> None:
        ran.append("broken")
        raise RuntimeError("boom")

    loop = Loop("test", [Tick("broken", 1.0, broken), Tick("good", 1.0, lambda: ran.append("good"))], lambda: True)
    times = [float(second) for second in range(1, 12)]
    for now in times:
        loop.once(now)
    assert ran.count("good") == len(times)
    # tried at 1; again after 2, 4, 8… seconds: at 3, 7 and not before 15
    assert ran.count("broken") == 3
    assert "broken failed 2 times; again in 4 s" in caplog.text


def test_a_tick_that_waits_for_the_store_is_at_work_soon_after_its_return(caplog: pytest.LogCaptureFixture) -> None:
    away = True
    worked: list[float] = []

    def needs_the_store() -> None:
        if away:
            raise OperationalError("select", None, Exception("connection refused"))
        worked.append(now)

    loop = Loop("test", [Tick("ledger", 1.0, needs_the_store)], lambda: True)
    for now in map(float, range(60)):
        loop.once(now)
    away = False
    for now in map(float, range(60, 65)):
        loop.once(now)
    assert worked[0] <= 62.0
    assert caplog.text.count("ledger waits") == 1  # said once, and without a traceback
    assert "Traceback" not in caplog.text


def test_a_tick_that_recovers_is_back_to_its_pace() -> None:
    outcomes = iter([True, False, False, False])
    ran: list[float] = []

    def sometimes() -> None:
        if next(outcomes):
            raise RuntimeError

    loop = Loop("test", [Tick("t", 1.0, lambda: (ran.append(0.0), sometimes()))], lambda: True)
    for now in (1.0, 2.0, 3.0, 4.0, 5.0):  # fails at 1, is due again at 3, then every second
        loop.once(now)
    assert len(ran) == 4


def test_only_the_leader_runs_what_has_one_master() -> None:
    ran: list[str] = []
    leads = False
    ticks = [
        Tick("master", 1.0, lambda: ran.append("master")),
        Tick("local", 1.0, lambda: ran.append("local"), leader_only=False),
    ]
    loop = Loop("test", ticks, lambda: leads)
    loop.once(1.0)
    assert ran == ["local"]
    leads = True
    loop.once(2.0)
    assert ran == ["local", "master", "local"]


def test_a_loop_starts_and_stops() -> None:
    ran = threading.Event()
    loop = Loop("test", [Tick("t", 0.01, ran.set)], lambda: True)
    loop.start()
    assert ran.wait(60)
    loop.stop()
    alive: Any = loop._thread.is_alive()
    assert not alive
