"""The implicit upgrade, noticed from recorded runs."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import insert

from lockgate.fleet.service import Alerts
from lockgate.fleet.upgrades import Upgrades
from lockgate.storage.engine import Database
from lockgate.storage.schema import routes, runs
from lockgate.testing import FakeClock

DIGEST = "sha256:" + "a" * 64
_numbers = itertools.count()


class World:
    def __init__(self, control: Database) -> None:
        self.control, self.clock = control, FakeClock(1000.0)
        self.alerts = Alerts(control, self.clock)
        self.locked: str | None = None
        self.tag: str | None = None
        self.upgrades = self.watch()
        self.route(DIGEST)

    def watch(self) -> Upgrades:
        return Upgrades(
            self.control, self.clock, self.alerts, locked=lambda *_: self.locked, digest=lambda *_: self.tag
        )

    def route(self, digest: str) -> None:
        with self.control.write() as connection:
            connection.execute(routes.delete())
            connection.execute(
                insert(routes).values(
                    environment="prod", agent="a", stable_behaviour=digest, stable_effective=digest, weight=0,
                    mirror=0, settings={}, revision=1,
                )
            )  # fmt: skip

    def run(self, revision: str) -> int:
        self.clock.advance(20)
        with self.control.write() as connection:
            connection.execute(
                insert(runs).values(
                    id=f"run_{next(_numbers)}", agent="a", environment="prod", behaviour_digest=DIGEST,
                    effective_digest=DIGEST, arm="stable", assignment_key="k", tenant="t", status="completed",
                    input="x", trace_id="0", started_at=self.clock(), ended_at=self.clock(),
                    served={"openai/gpt": revision},
                )
            )  # fmt: skip
        return self.upgrades.tick()

    def open(self) -> list[str]:
        return [alert.severity for alert in self.alerts.list()]


@pytest.fixture
def world(control: Database) -> World:
    return World(control)


def test_the_first_revision_is_expected_and_another_raises_one_alert(world: World) -> None:
    assert (world.run("gpt-1 fp_a"), world.run("gpt-1 fp_a"), world.open()) == (0, 0, [])
    assert (world.run("gpt-1 fp_b"), world.open()) == (1, ["warning"])
    assert (world.run("gpt-1 fp_b"), world.run("gpt-1 fp_a")) == (0, 0)
    assert (world.run("gpt-2 fp_b"), world.open()) == (1, ["critical"])


def test_a_closed_alert_accepts_the_revision_for_good(world: World) -> None:
    world.run("gpt-1 fp_a")
    world.run("gpt-1 fp_b")
    world.alerts.resolve_by_id(world.alerts.list()[0].id)
    assert (world.run("gpt-1 fp_b"), world.open()) == (0, [])
    world.upgrades = world.watch()  # another process
    assert (world.run("gpt-1 fp_b"), world.open()) == (0, [])


def test_a_version_that_serves_no_more_closes_its_alert(world: World) -> None:
    world.run("gpt-1 fp_a")
    world.run("gpt-1 fp_b")
    world.route("sha256:" + "b" * 64)
    world.upgrades.tick()
    assert world.open() == []


def test_a_tag_that_moved_since_it_was_locked_is_noticed_at_the_first_run(world: World) -> None:
    world.locked, world.tag = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert (world.run("llama3 fp_ollama"), world.open()) == (1, ["critical"])
    assert "sha256:222222222222" in world.alerts.list()[0].message


def test_a_tag_that_is_as_locked_is_fine(world: World) -> None:
    world.locked = world.tag = "sha256:" + "1" * 64
    assert (world.run("llama3 fp_ollama"), world.open()) == (0, [])
