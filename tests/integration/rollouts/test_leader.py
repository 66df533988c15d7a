"""One leader at a time; who comes too late is told."""

from __future__ import annotations

import pytest

from lockgate.errors import Conflict
from lockgate.rollouts.leader import Leadership
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock


def candidate(control: Database, clock: FakeClock, holder: str) -> Leadership:
    return Leadership(control, clock, name="control", holder=holder, seconds=5.0)


def test_the_second_waits_until_the_lease_runs_out(control: Database) -> None:
    clock = FakeClock()
    first, second = candidate(control, clock, "a"), candidate(control, clock, "b")
    assert first.acquire()
    assert not second.acquire()
    clock.advance(4)
    assert first.acquire()  # renewed
    clock.advance(4)
    assert not second.acquire()
    clock.advance(1)
    assert second.acquire()
    assert not first.acquire()


def test_the_fence_counts_up_and_stops_the_old_leader(control: Database) -> None:
    clock = FakeClock()
    first, second = candidate(control, clock, "a"), candidate(control, clock, "b")
    assert first.acquire()
    old = first.fence
    clock.advance(6)
    assert not first.leads()
    assert second.acquire()
    assert second.fence is not None
    assert old is not None
    assert second.fence > old
    with control.write() as connection:
        second.check(connection)
        with pytest.raises(Conflict, match="'b' does"):
            first.check(connection)


def test_a_restarted_process_of_the_same_name_is_another_leader(control: Database) -> None:
    clock = FakeClock()
    first, restarted = candidate(control, clock, "a"), candidate(control, clock, "a")
    assert first.acquire()
    assert not restarted.acquire()
    clock.advance(5)
    assert restarted.acquire()
    with control.write() as connection, pytest.raises(Conflict):
        first.check(connection)


def test_a_leader_that_leaves_lets_the_next_one_start_at_once(control: Database) -> None:
    clock = FakeClock()
    first, second = candidate(control, clock, "a"), candidate(control, clock, "b")
    assert first.acquire()
    first.release()
    assert second.acquire()
    first.release()  # not ours any more: nothing happens
    assert second.acquire()
