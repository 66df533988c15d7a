"""Rollouts on real processes: `lockgate up`, users who come and go, a fake model server, and a control plane that dies.

Only the model is fake. What is decided, routed, shadowed, scored and counted is what ran.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockgate.bootstrap import App, open_app
from lockgate.rollouts.service import RolloutStatus
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest

pytestmark = pytest.mark.xdist_group("up")

PROJECT = """\
project: shop
owner: shop-team
providers:
  openai: {{kind: openai, base_url: "{url}"}}
"""
AGENT = """\
agent:
  name: triage
  version: {version}
  model: {{provider: openai, name: gpt-4o-mini-2024-07-18}}
  system_prompt: prompts/v{version}.md
  evals:
    thresholds: {{starts_ok: {{metric: regex, pattern: "^ok", margin: 0.2}}}}
  rollout:
    shadow: {{mirror: 100, min_pairs: 5, max: 60s}}
    phases: [{{weight: 10, min: 1s}}, {{weight: 50, min: 1s, min_units: 5}}]
    gates: {{errors: {{max: 0.2}}, latency: false, cost_usd: {{ratio: 1.5}}}}
    session_idle: 500ms
    unit_deadline: 60s
    min_reference: 5
    beta: 0.2
"""
WAIT = 150.0


def answer(request: ModelRequest) -> str:
    """v2 answers at length."""
    return "ok " + "word " * (400 if "You are v2." in json.dumps(request.body) else 20)


class Shop:
    """A running project, and the users of its agent."""

    def __init__(self, app: App, url: str, key: str, process: subprocess.Popen[str]) -> None:
        self.app, self.url, self.process = app, url, process
        self.refused: list[Any] = []
        self._key = key
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._until_served()
        self._users = [threading.Thread(target=self._use, daemon=True) for _ in range(2)]
        for user in self._users:
            user.start()

    def _until_served(self) -> None:
        end = time.monotonic() + WAIT
        while True:
            try:
                self.ask()
                return
            except OSError:  # a host takes a moment to start
                assert time.monotonic() < end
                time.sleep(0.3)

    def leave(self) -> None:
        self._stop.set()
        for user in self._users:
            user.join(60)

    def ask(self) -> dict[str, Any]:
        number = next(self._numbers)
        request = urllib.request.Request(
            f"{self.url}/api/v1/agents/triage/runs",
            data=json.dumps({"input": f"message {number}", "session": f"session-{number}"}).encode(),
            headers={"authorization": f"Bearer {self._key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return dict(json.load(response))

    def until(self, true: Callable[[RolloutStatus], bool], rollout_id: str) -> RolloutStatus:
        end = time.monotonic() + WAIT
        while True:
            found = self.app.rollouts.status(rollout_id)
            if true(found):
                return found
            assert time.monotonic() < end, (found.rollout.status, found.decision, found.readings)
            time.sleep(0.3)

    def control_pid(self) -> int:
        with self.app.control.read() as connection:
            holder = connection.exec_driver_sql("select holder from leases where name = 'control'").scalar_one()
        return int(holder.rpartition(":")[2])

    def _use(self) -> None:
        while not self._stop.wait(0.1):
            try:
                result = self.ask()
            except (urllib.error.URLError, OSError) as failure:
                self.refused.append(failure)
            else:
                if result["status"] != "completed":
                    self.refused.append(result)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    for folder in ("agents", "prompts"):
        (tmp_path / folder).mkdir()
    for version in (1, 2, 3):
        (tmp_path / f"agents/triage.v{version}.yaml").write_text(AGENT.format(version=version))
        (tmp_path / f"prompts/v{version}.md").write_text(f"You are v{version}.\n")
    with FakeModelServer(answer, latency=0.02) as server:
        (tmp_path / "lockgate.yaml").write_text(PROJECT.format(url=server.base_url))
        app = open_app(tmp_path)
        app.versions.lock()
        app.rollouts.deploy("triage@1", "dev")
        key, _ = app.keys.create(tenant="acme", environment="dev")
        command = [sys.executable, "-m", "lockgate", "up", "--port", "0", "--workers", "1", "--drain", "5"]
        with open(tmp_path / "up.log", "w") as log:
            process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, text=True)
        running: Shop | None = None
        try:
            running = Shop(app, _url(app, tmp_path / "up.log"), key, process)
            yield running
        finally:
            if running is not None:
                running.leave()
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            app.control.close()


def _url(app: App, log: Path) -> str:
    end = time.monotonic() + 60
    while "Ready in" not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return str(json.loads((app.home / "run/gateway.json").read_text())["url"])


@pytest.mark.timeout(500)
def test_a_costly_version_is_rolled_back_and_a_good_one_promoted_though_the_control_plane_is_killed(shop: Shop) -> None:
    costly = shop.app.rollouts.deploy("triage@2", "dev").rollout
    assert costly is not None
    ended = shop.until(lambda found: not found.rollout.live, costly.id)
    assert ended.rollout.status == "rolled_back"
    assert "harm cost_usd E" in ended.rollout.reason
    assert [alert.kind for alert in shop.app.alerts.list()] == ["rollback"]

    good = shop.app.rollouts.deploy("triage@3", "dev").rollout
    assert good is not None
    before = shop.until(lambda found: found.rollout.phase >= 1, good.id)
    killed = shop.control_pid()
    os.kill(killed, signal.SIGKILL)
    assert shop.ask()["status"] == "completed"  # the gateway serves without it
    after = shop.until(lambda found: not found.rollout.live, good.id)
    assert after.rollout.status == "promoted"
    assert shop.control_pid() != killed
    assert after.traffic.pairs >= before.traffic.pairs  # it went on where it was
    kinds = [event.kind for event in after.events]
    assert kinds == ["started", "phase", "phase", "phase", "promoted"]

    for stored, again in zip(after.readings, shop.app.rollouts.recompute(good.id), strict=True):
        assert stored.candidate_units <= again.candidate_units  # units that completed after the decision
    (deployed,) = shop.app.rollouts.deployments("dev")
    assert deployed.stable == shop.app.versions.ref("triage@3", "dev")
    shop.app.rollouts.undo("triage", "dev", reason="second thoughts")
    assert shop.ask()["status"] == "completed"
    assert shop.refused == []  # not one user was turned away, whatever was rolled out, back or killed
