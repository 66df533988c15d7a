"""The control plane runs the fallback slice of what serves when it is due, and raises an alert when it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from lockgate.fleet.fallbacks import Fallbacks, Slice, fallback_command
from lockgate.fleet.service import Alerts
from lockgate.storage.engine import Database
from lockgate.storage.schema import deployments, eval_runs
from lockgate.testing import FakeClock

DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Watched:
    """Slices whose outcome is told beforehand, and the agents they were run for."""

    def __init__(self, control: Database, clock: FakeClock, root: Path) -> None:
        self.control, self.clock = control, clock
        self.alerts = Alerts(control, clock)
        self.code = 0
        self.ran: list[str] = []
        self.fallbacks = Fallbacks(control, clock, self.alerts, root, command=self._command)

    def _command(self, one: Slice) -> Sequence[str]:
        self.ran.append(f"{one.environment}/{one.agent}")
        say = "import sys; sys.stderr.write('error: no server at all'); sys.exit(int(sys.argv[1]))"
        return (sys.executable, "-c", say, str(self.code))

    def deploy(self, agent: str, environment: str = "prod", **fallback: Any) -> None:
        row = {
            "environment": environment,
            "agent": agent,
            "stable_behaviour": "sha256:" + "b" * 64,
            "stable_effective": "sha256:" + "e" * 64,
            "settings": {"evals": {"fallback": fallback} if fallback else {}},
            "updated_at": 0.0,
            "updated_by": "test",
        }
        with self.control.write() as connection:
            connection.execute(insert(deployments).values(**row))

    def evaluated(self, agent: str, at: float, verdict: str | None) -> None:
        row = {
            "id": f"eval_{agent}_{at}",
            "agent": agent,
            "kind": "fallback",
            "behaviour_digest": "b",
            "effective_digest": "e",
            "dataset_digest": "d",
            "rubric_digest": "r",
            "verdict": verdict,
            "started_at": at,
        }
        with self.control.write() as connection:
            connection.execute(insert(eval_runs).values(**row))

    def until_done(self) -> list[str]:
        """Start what is due and wait for it; the open alerts' messages."""
        self.fallbacks.tick()
        deadline = time.monotonic() + 60
        while self.fallbacks._running is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            self.fallbacks.tick()
        return [alert.message for alert in self.alerts.list()]


@pytest.fixture
def watched(database_factory: Callable[..., Database], clock: FakeClock, tmp_path: Path) -> Watched:
    return Watched(database_factory("control"), clock, tmp_path)


def test_only_what_asks_for_it_is_run_in_its_environment_and_again_after_a_week(watched: Watched) -> None:
    watched.deploy("quiet")
    watched.deploy("careful", cases=5)
    watched.deploy("careful", environment="dev", cases=5)
    assert watched.until_done() == []
    assert watched.ran == ["prod/careful"]
    watched.evaluated("careful", watched.clock(), "pass")
    watched.clock.advance(6 * DAY)
    watched.until_done()
    assert watched.ran == ["prod/careful"]
    watched.clock.advance(1.1 * DAY)
    watched.until_done()
    assert watched.ran == ["prod/careful"] * 2


def test_one_alert_stands_while_the_backup_model_fails_and_goes_when_it_passes(watched: Watched) -> None:
    watched.deploy("careful", every=DAY)
    watched.code = 1
    [message] = watched.until_done()
    assert "the backup model of careful in prod does not pass" in message
    watched.evaluated("careful", watched.clock(), "fail")
    watched.clock.advance(2 * DAY)
    assert len(watched.until_done()) == 1
    watched.evaluated("careful", watched.clock(), "fail")
    watched.clock.advance(2 * DAY)
    watched.code = 0
    assert watched.until_done() == []


def test_a_backup_model_that_cannot_be_asked_is_said_and_tried_again_after_an_hour(watched: Watched) -> None:
    watched.deploy("careful", every=7 * DAY)
    watched.code = 4
    [message] = watched.until_done()
    assert "could not be tried: error: no server at all" in message
    watched.until_done()
    assert len(watched.ran) == 1
    watched.clock.advance(3700)
    watched.until_done()
    assert len(watched.ran) == 2


def test_the_slice_that_runs_ends_with_the_control_plane(watched: Watched) -> None:
    watched.deploy("careful", cases=5)
    watched.fallbacks._command = lambda one: (sys.executable, "-c", "import time; time.sleep(60)")
    watched.fallbacks.tick()
    running = watched.fallbacks._running
    assert running is not None
    watched.fallbacks.tick()  # it waits for nothing
    watched.fallbacks.stop()
    assert running.child.returncode is not None


def test_the_command_is_lockgates_own() -> None:
    command = fallback_command(Slice("prod", "careful", "sha256:abc"))
    assert command[0] == sys.executable
    assert command[-5:] == ("fallback", "sha256:abc", "--env", "prod", "--json")
