"""A project with locked versions, a clock that stands still, and traffic written as rows: what hosts would leave."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from lockgate.project.service import load_project
from lockgate.rollouts import store
from lockgate.rollouts.controller import Controller
from lockgate.rollouts.model import Rollout
from lockgate.rollouts.service import Rollouts
from lockgate.storage import schema
from lockgate.storage.blobs import BlobStore
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock
from lockgate.versions.service import Versions

PROJECT = """
project: shop
owner: shop-team
"""
AGENT = """
agent:
  name: triage
  version: {version}
  model: {{provider: openai, name: gpt-4o-mini-2024-07-18}}
  system_prompt: prompts/triage.v{version}.md
  evals:
    thresholds: {{grounded: {{metric: regex, pattern: "^ok", margin: 0.15}}}}
  rollout:
    shadow: {{mirror: 100, min_pairs: 4, max: 10m}}
    phases: [{{weight: 10, min: 10s, min_units: 1}}, {{weight: 50, min: 10s, min_units: 5}}]
    gates: {{errors: {{max: 0.15}}, latency: false, cost_usd: {{ratio: 1.5}}}}
    session_idle: 2s
    unit_deadline: 60s
    min_reference: 5
    beta: 0.2
"""


class World:
    """Everything a rollout touches, without processes."""

    def __init__(self, root: Path, control: Database) -> None:
        self.clock = FakeClock()
        self.control = control
        self.project = load_project(root)
        self.versions = Versions(self.project, control, BlobStore(self.project.home / "blobs"), self.clock)
        self.versions.lock()
        self.rollouts = Rollouts(control, self.clock, versions=self.versions, project=self.project)
        self.alerts: list[tuple[str, str, str, str, str]] = []
        self.controller = Controller(control, self.clock, alert=lambda *alert: self.alerts.append(alert))
        self._numbers = itertools.count()
        self._serving: set[str] = set()

    # --- versions ---------------------------------------------------------------------------------------------

    def ref(self, version: int, environment: str = "dev") -> Any:
        return self.versions.ref(f"triage@{version}", environment)

    def attest(self, version: int, verdict: str, environment: str = "prod") -> None:
        ref = self.ref(version, environment)
        self.versions.attest("triage", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r", verdict, {})

    def serve(self, *versions: int) -> None:
        """Hosts of these versions are up, and stay up while time passes."""
        self._serving |= {self.ref(version).effective_digest for version in versions}
        self._beat()

    def stop(self, version: int) -> None:
        digest = self.ref(version).effective_digest
        self._serving.discard(digest)
        with self.control.write() as connection:
            connection.execute(delete(schema.hosts).where(schema.hosts.c.effective_digest == digest))

    def _beat(self) -> None:
        with self.control.write() as connection:
            for digest in self._serving:
                changed = connection.execute(
                    update(schema.hosts)
                    .where(schema.hosts.c.effective_digest == digest)
                    .values(heartbeat_at=self.clock())
                )
                if not changed.rowcount:
                    row = {"id": f"host_{digest[:20]}", "effective_digest": digest, "pid": 1, "address": "/s"}
                    connection.execute(
                        insert(schema.hosts).values(**row, ready_at=self.clock(), heartbeat_at=self.clock())
                    )

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._beat()

    # --- traffic ----------------------------------------------------------------------------------------------

    def run(self, version: int, arm: str, key: str, *, rollout_id: str | None = None, **more: Any) -> str:
        """One run that ended a second after it began, as its host would have recorded it."""
        ref = self.ref(version)
        run_id = f"run_{next(self._numbers):08}"
        now = self.clock()
        row = {
            "id": run_id,
            "agent": "triage",
            "environment": "dev",
            "behaviour_digest": ref.behaviour_digest,
            "effective_digest": ref.effective_digest,
            "arm": arm,
            "rollout_id": rollout_id,
            "assignment_key": key,
            "tenant": "acme",
            "status": "completed",
            "input": "hello",
            "output": "ok",
            "cost_nano": 1000,
            "trace_id": "0" * 32,
            "started_at": now,
            "ended_at": now + 1,
        } | more
        score = row.pop("score", 1.0)
        with self.control.write() as connection:
            connection.execute(insert(schema.runs).values(**row))
            if row["status"] == "completed" and score is not None:
                scored = {"run_id": run_id, "metric": "grounded", "score": score, "scored_at": now}
                connection.execute(insert(schema.run_scores).values(**scored))
        return run_id

    def visit(self, rollout: Rollout, key: str, *, candidate: Any = None, stable: Any = None) -> str:
        """A user comes: the gateway assigns, the arm's host runs. ``candidate``/``stable`` override the run's row."""
        with self.control.read() as connection:
            route = store.route(connection, "dev", "triage")
        assert route is not None
        weight = route.weight if route.rollout_id == rollout.id else 0.0
        arm = self.rollouts.assign(rollout.id, key, weight, self.clock())
        if arm == "candidate":
            self.run(2, "candidate", key, rollout_id=rollout.id, **(candidate or {}))
        else:
            primary = self.run(1, "stable", key, rollout_id=rollout.id, **(stable or {}))
            if route.mirror and route.rollout_id == rollout.id:
                self.run(2, "shadow", key, rollout_id=rollout.id, primary_run=primary, **(candidate or {}))
        return str(arm)

    def history(self, count: int = 10, **more: Any) -> None:
        """The baseline served so many users before."""
        for number in range(count):
            self.run(1, "stable", f"before-{number}", **more)
        self.advance(10)

    # --- what is stored ---------------------------------------------------------------------------------------

    def route(self) -> Any:
        with self.control.read() as connection:
            return store.route(connection, "dev", "triage")

    def events(self, rollout: Rollout) -> list[str]:
        with self.control.read() as connection:
            return [event.kind for event in store.events(connection, rollout.id)]

    def rows(self, table: Any) -> list[Any]:
        with self.control.read() as connection:
            return list(connection.execute(select(table)).all())

    def started(self) -> Rollout:
        """v1 serves dev with a history, v2 is on its way, both have hosts."""
        self.rollouts.deploy("triage@1", "dev")
        self.serve(1, 2)
        self.history()
        rollout = self.rollouts.deploy("triage@2", "dev").rollout
        assert rollout is not None
        return rollout


@pytest.fixture
def world(control: Database, tmp_path: Path) -> World:
    root = tmp_path / "shop"
    for folder in ("agents", "prompts"):
        (root / folder).mkdir(parents=True)
    (root / "lockgate.yaml").write_text(PROJECT)
    for version in (1, 2, 3):
        (root / f"agents/triage.v{version}.yaml").write_text(AGENT.format(version=version))
        (root / f"prompts/triage.v{version}.md").write_text(f"You sort mail, {version}.\n")
    return World(root, control)
