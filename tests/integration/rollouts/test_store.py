"""Assignments are written once and kept; units and pairs come back in order."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select

from lockgate.rollouts import evidence_store, store
from lockgate.storage.engine import Database
from lockgate.storage.schema import assignments


def test_a_key_keeps_its_arm_whatever_becomes_of_the_weight(control: Database) -> None:
    first = {key: store.assign(control, "rollout_a", key, 5, 1.0) for key in map(str, range(40))}
    for weight in (25, 50, 100, 0):
        assert {key: store.assign(control, "rollout_a", key, weight, 2.0) for key in first} == first
    with control.read() as connection:
        assert set(connection.execute(select(assignments.c.weight)).scalars()) == {5.0}
        assert set(connection.execute(select(assignments.c.seq)).scalars()) == set(range(1, 41))


def test_a_new_key_at_weight_0_takes_no_part(control: Database) -> None:
    assert store.assign(control, "rollout_a", "u", 0, 1.0) == "stable"
    with control.read() as connection:
        assert connection.execute(select(assignments)).all() == []
    assert store.assign(control, "rollout_a", "u", 100, 1.0) == "candidate"


def test_many_workers_that_assign_one_key_agree(control: Database) -> None:
    arms: list[str] = []
    weights = [0.01, 99.99, 50, 30, 70, 20]  # each alone would choose differently
    barrier = threading.Barrier(len(weights))

    def work(weight: float) -> None:
        barrier.wait(60)
        arms.append(store.assign(control, "rollout_a", "one-user", weight, 1.0))

    threads = [threading.Thread(target=work, args=(weight,)) for weight in weights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(arms) == len(weights)
    assert len(set(arms)) == 1


def test_units_come_in_order_with_their_own_arms_runs(world: Any) -> None:
    rollout = world.started()
    for number, key in enumerate("abc"):
        arm = world.rollouts.assign(rollout.id, key, 50, float(number))
        for _ in range(2):
            world.run(2 if arm == "candidate" else 1, arm, key, rollout_id=rollout.id)
    world.run(1, "stable", "never-assigned", rollout_id=rollout.id)
    world.run(1, "stable", "a", rollout_id="rollout_other")
    with world.control.read() as connection:
        found = evidence_store.units(connection, [rollout.id], 0, 10)
        assert [unit.key for unit in found] == ["a", "b", "c"]
        assert [len(unit.runs) for unit in found] == [2, 2, 2]
        assert found[0].weight == 0.5
        rest = evidence_store.units(connection, [rollout.id], found[0].seq, 1)
        assert [unit.key for unit in rest] == ["b"]


def test_a_candidates_user_who_fell_back_to_the_stable_version_counts_for_neither(world: Any) -> None:
    rollout = world.started()
    assert world.rollouts.assign(rollout.id, "a", 100, 1.0) == "candidate"
    world.run(1, "stable", "a", rollout_id=rollout.id)
    with world.control.read() as connection:
        (unit,) = evidence_store.units(connection, [rollout.id], 0, 10)
    assert (unit.candidate, unit.runs) == (True, ())


def test_pairs_come_in_order_and_only_the_first_of_a_key_is_first(world: Any) -> None:
    rollout = world.started()
    for key in ("a", "b", "a"):
        primary = world.run(1, "stable", key, rollout_id=rollout.id)
        world.run(2, "shadow", key, rollout_id=rollout.id, primary_run=primary)
        world.advance(1)
    with world.control.read() as connection:
        found = evidence_store.pairs(connection, [rollout.id], (0.0, ""), 10)
        assert [(pair.shadow.key, pair.first) for pair in found] == [("a", True), ("b", True), ("a", False)]
        after = (found[0].at, found[0].shadow.id)
        rest = evidence_store.pairs(connection, [rollout.id], after, 10)
        assert [(pair.shadow.key, pair.first) for pair in rest] == [("b", True), ("a", False)]


def test_the_fast_counts_leave_out_what_the_candidate_did_not_do(world: Any) -> None:
    rollout = world.started()
    for key, error_type in (("a", "code_error"), ("b", "budget_exceeded"), ("c", None)):
        assert world.rollouts.assign(rollout.id, key, 100, 1.0) == "candidate"
        status = "failed" if error_type else "completed"
        world.run(2, "candidate", key, rollout_id=rollout.id, status=status, error_type=error_type)
    world.run(2, "shadow", "d", rollout_id=rollout.id, status="failed", error_type="unscored")
    world.run(2, "shadow", "e", rollout_id=rollout.id, status="failed", error_type="model_invalid")
    with world.control.read() as connection:
        assert evidence_store.fast_counts(connection, [rollout.id]) == (4, 2)


@pytest.mark.parametrize("renew_before", [0.0, 10.0])
def test_a_route_is_written_when_it_differs_or_its_lease_is_short(world: Any, renew_before: float) -> None:
    world.started()
    route = world.route()
    with world.control.write() as connection:
        short = route.lease_until < renew_before
        assert store.save_route(connection, route, renew_before=renew_before) is short
        after = route.lease_until + 100
        assert store.save_route(connection, route, renew_before=after)
        stored = store.route(connection, "dev", "triage")
    assert stored is not None
    assert stored.revision == route.revision + 1
