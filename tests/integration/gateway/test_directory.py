"""What a worker knows: fresh while the store answers, the last snapshot with its leases while it does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import insert, update
from sqlalchemy.exc import OperationalError

from lockgate.gateway import store
from lockgate.gateway.directory import INTERVAL, Directory
from lockgate.gateway.keys import Keys
from lockgate.storage.engine import Database
from lockgate.storage.schema import routes
from lockgate.testing import FakeClock

if TYPE_CHECKING:
    import pytest

ROW = {
    "environment": "prod",
    "agent": "triage",
    "stable_behaviour": "sha256:a",
    "stable_effective": "sha256:b",
    "candidate_behaviour": "sha256:c",
    "candidate_effective": "sha256:d",
    "rollout_id": "ro_1",
    "weight": 25.0,
    "mirror": 10.0,
    "settings": {"daily_usd": 5.0},
    "lease_until": 1060.0,
    "revision": 3,
}


def directory_of(control: Database, clock: FakeClock) -> Directory:
    with control.write() as connection:
        connection.execute(insert(routes).values(**ROW))
    return Directory(control, Keys(control, clock), clock)


def test_a_route_is_read_as_it_was_written(control: Database) -> None:
    directory = directory_of(control, FakeClock(1000.0))
    assert directory.refresh()
    route = directory.route("prod", "triage")
    assert (route.stable.behaviour_digest, route.stable.effective_digest) == ("sha256:a", "sha256:b")
    assert route.candidate is not None
    assert (route.candidate.effective_digest, route.rollout_id) == ("sha256:d", "ro_1")
    assert (route.weight, route.mirror, route.settings.daily_usd, route.revision) == (25.0, 10.0, 5.0, 3)


def test_a_change_is_seen_at_the_next_reading(control: Database) -> None:
    directory = directory_of(control, FakeClock(1000.0))
    directory.refresh()
    with control.write() as connection:
        connection.execute(update(routes).values(weight=50.0, revision=4))
    assert directory.route("prod", "triage").weight == 25.0
    directory.refresh()
    assert directory.route("prod", "triage").weight == 50.0


def test_while_the_store_is_away_the_last_snapshot_serves_until_its_lease_lapses(
    control: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(1000.0)
    directory = directory_of(control, clock)
    directory.refresh()

    def away(_: object) -> None:
        raise OperationalError("select", {}, Exception("gone"))

    monkeypatch.setattr("lockgate.gateway.store.all_routes", away)
    clock.advance(59)
    assert not directory.refresh()
    assert directory.route("prod", "triage").candidate is not None
    clock.advance(2)
    assert not directory.refresh()
    held = directory.route("prod", "triage")
    assert (held.candidate, held.stable.effective_digest) == (None, "sha256:b")
    monkeypatch.undo()
    with control.write() as connection:
        connection.execute(update(routes).values(lease_until=2000.0))
    assert directory.refresh()
    assert directory.route("prod", "triage").candidate is not None


def test_the_thread_keeps_reading_until_it_is_stopped(control: Database) -> None:
    clock = FakeClock(1000.0)
    directory = directory_of(control, clock)
    directory.start()
    with control.write() as connection:
        connection.execute(update(routes).values(weight=77.0))
    deadline = time.monotonic() + 60
    while directory.route("prod", "triage").weight != 77.0:
        assert time.monotonic() < deadline
        time.sleep(INTERVAL / 10)
    directory.stop()
    assert directory.read_at == 1000.0


def test_a_written_route_is_a_change_once_and_a_store_that_is_away_is_none(
    control: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = store.watch(control)
    assert not changed()  # whoever begins has read everything
    with control.write() as connection:
        connection.execute(insert(routes).values(**ROW))
    assert changed()
    assert not changed()
    with control.write() as connection:
        connection.execute(update(routes).values(revision=routes.c.revision + 1, weight=50.0))
    with monkeypatch.context() as away:
        away.setattr(control, "read", lambda: (_ for _ in ()).throw(OperationalError("away", {}, Exception())))
        assert not changed()
    assert changed()


def test_whatever_fails_the_next_reading_comes(control: Database) -> None:
    failures = [OperationalError("", None, Exception("away")), None, RuntimeError("a defect"), None]
    looks = 0

    def count_machines() -> None:
        nonlocal looks
        looks += 1
        if failures and (failure := failures.pop(0)):
            raise failure

    clock = FakeClock(1000.0)
    directory = Directory(control, Keys(control, clock), clock, files=[count_machines])
    assert not directory.refresh()
    directory.start()
    try:
        deadline = time.monotonic() + 60
        while looks < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        directory.stop()
