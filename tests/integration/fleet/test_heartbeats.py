"""The fleet over its database: heartbeats, what they are answered, and the alerts."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from lockgate.errors import NotFound
from lockgate.fleet.heartbeats.model import Heartbeat
from lockgate.fleet.heartbeats.service import Fleet
from lockgate.fleet.service import Alerts
from lockgate.rollouts import store as rollouts
from lockgate.rollouts.controller import stable_route
from lockgate.rollouts.model import Deployment
from lockgate.runtime.store import put_host
from lockgate.storage.engine import Database
from lockgate.storage.schema import versions
from lockgate.testing import FakeClock
from lockgate.versions.model import AgentSettings, VersionRef

PULL = "oci://lockgate.example/"


def ref(letter: str) -> VersionRef:
    return VersionRef(
        agent="triage", behaviour_digest="sha256:" + letter * 64, effective_digest="sha256:e" + letter * 63
    )


class World:
    """A fleet, and a way to deploy without everything that belongs to it."""

    def __init__(self, control: Database) -> None:
        self.control = control
        self.clock = FakeClock(10_000.0)
        self.alerts = Alerts(control, self.clock)
        self.fleet = Fleet(control, self.clock, self.alerts)
        self._number = 0

    def deploy(self, letter: str, previous: str | None = None) -> VersionRef:
        self._number += 1
        deployed = Deployment(
            environment="prod",
            agent="triage",
            stable=ref(letter),
            settings=AgentSettings(),
            previous=None if previous is None else ref(previous),
            warm_until=None if previous is None else 1e12,
            updated_at=self.clock(),
        )
        with self.control.write() as connection:
            rollouts.save_deployment(connection, deployed)
            rollouts.save_route(connection, stable_route(deployed))
            connection.execute(
                insert(versions).values(
                    behaviour_digest=ref(letter).behaviour_digest,
                    agent="triage",
                    file_version=self._number,
                    created_at=0.0,
                    source="agents/triage.yaml",
                    settings_digest="sha256:s",
                )
            )
        return ref(letter)

    def host(self, name: str, letter: str) -> None:
        with self.control.write() as connection:
            put_host(
                connection,
                host=name,
                effective_digest=ref(letter).effective_digest,
                pid=7,
                address="/x",
                now=self.clock(),
            )

    def open_alerts(self) -> list[tuple[str, str]]:
        return sorted((one.kind, one.subject) for one in self.alerts.list())


@pytest.fixture
def world(control: Database) -> World:
    return World(control)


def beat(version: str = "1", **more: object) -> Heartbeat:
    return Heartbeat(agent="triage", instance="pod-1", version=version, **more)  # type: ignore[arg-type]


def test_an_instance_is_told_what_it_should_run_and_where_to_pull_it(world: World) -> None:
    first = world.deploy("a")
    answer = world.fleet.beat("prod", beat(), pull=PULL)
    assert (answer.up_to_date, answer.lag_seconds, answer.file_version) == (True, 0.0, 1)
    assert answer.pull == f"oci://lockgate.example/triage@{first.behaviour_digest}"
    world.clock.advance(100.0)
    second = world.deploy("b", previous="a")
    world.clock.advance(5.0)
    answer = world.fleet.beat("prod", beat(), pull=None)
    assert (answer.up_to_date, answer.lag_seconds, answer.pull) == (False, 5.0, None)
    assert (answer.config_version, answer.effective_digest) == (second.behaviour_digest, second.effective_digest)
    assert world.fleet.beat("prod", beat("b" * 12), pull=None).up_to_date
    assert world.fleet.beat("prod", beat(""), pull=None).up_to_date is None  # it did not say


def test_an_instance_of_what_is_not_deployed_is_not_taken(world: World) -> None:
    world.deploy("a")
    with pytest.raises(NotFound, match="no agent 'triage' is deployed in 'dev'"):
        world.fleet.beat("dev", beat(), pull=None)
    assert world.fleet.list() == []


def test_the_fleet_shows_who_reports_and_our_hosts_with_the_lag(world: World) -> None:
    world.deploy("a")
    world.fleet.beat("prod", beat(message="Processing task #42"), pull=None)
    world.clock.advance(50.0)
    world.deploy("b", previous="a")
    world.host("host_new", "b")
    world.host("host_old", "a")
    world.host("host_lost", "c")
    world.clock.advance(10.0)
    shown = {one.instance: one for one in world.fleet.list()}
    assert {name: (one.role, one.lag, one.status) for name, one in shown.items()} == {
        "pod-1": ("reports", 10.0, "ok"),
        "host_new": ("stable", 0.0, "ok"),
        "host_old": ("previous", 0.0, "ok"),
        "host_lost": ("retired", 0.0, "ok"),
    }
    assert shown["pod-1"].message == "Processing task #42"
    assert shown["pod-1"].should_run == ref("b").behaviour_digest
    assert [one.instance for one in world.fleet.list("prod")] == ["host_old", "pod-1", "host_new"]


def test_a_change_of_settings_does_not_make_a_lag_shorter(world: World) -> None:
    world.deploy("a")
    world.fleet.beat("prod", beat(), pull=None)
    world.deploy("b")
    world.clock.advance(20.0)
    world.fleet.watch()
    with world.control.write() as connection:  # deployed again, with other settings
        deployed = rollouts.deployment(connection, "prod", "triage")
        assert deployed is not None
        world.clock.advance(20.0)
        rollouts.save_deployment(
            connection,
            Deployment(
                environment="prod",
                agent="triage",
                stable=deployed.stable,
                settings=deployed.settings,
                updated_at=world.clock(),
            ),
        )
    assert world.fleet.list()[0].lag == 40.0


def test_one_that_is_missing_or_stays_behind_is_told_of_until_it_is_well(world: World) -> None:
    world.deploy("a")
    world.host("host_a", "a")
    world.fleet.beat("prod", beat(), pull=None)
    world.fleet.watch()
    assert world.open_alerts() == []
    world.clock.advance(200.0)
    world.host("host_a", "a")
    world.fleet.watch()
    assert world.open_alerts() == [("instance_missing", "prod/triage pod-1")]
    world.deploy("b", previous="a")
    world.host("host_b", "b")
    world.fleet.beat("prod", beat(), pull=None)
    world.fleet.watch()
    assert world.open_alerts() == []
    world.clock.advance(301.0)
    world.host("host_b", "b")
    world.fleet.beat("prod", beat(), pull=None)
    world.fleet.watch()
    assert world.open_alerts() == [("instance_lag", "prod/triage pod-1")]
    world.fleet.beat("prod", beat("2"), pull=None)
    world.fleet.watch()
    assert world.open_alerts() == []


def test_a_version_without_a_host_is_told_of_after_a_while(world: World) -> None:
    world.deploy("a")
    world.fleet.watch()
    world.clock.advance(30.0)
    world.fleet.watch()
    assert world.open_alerts() == []
    world.clock.advance(1.0)
    world.fleet.watch()
    assert world.open_alerts() == [("no_host", "prod/triage")]
    world.host("host_a", "a")
    world.fleet.watch()
    assert world.open_alerts() == []


def test_what_is_forgotten_is_not_missed(world: World) -> None:
    world.deploy("a")
    world.fleet.beat("prod", beat(), pull=None)
    world.clock.advance(1000.0)
    world.fleet.watch()
    assert ("instance_missing", "prod/triage pod-1") in world.open_alerts()
    world.fleet.forget("prod", "triage", "pod-1")
    world.fleet.watch()
    assert ("instance_missing", "prod/triage pod-1") not in world.open_alerts()
    with pytest.raises(NotFound, match="no instance 'pod-1'"):
        world.fleet.forget("prod", "triage", "pod-1")
