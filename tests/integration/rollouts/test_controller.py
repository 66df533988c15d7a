"""The controller moves rollouts on, whatever happened between two ticks."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import msgspec
import pytest

from lockgate.errors import Conflict
from lockgate.gateway.routes import in_force
from lockgate.rollouts import controller, gather, store
from lockgate.rollouts.controller import LEASE_SECONDS, Controller
from lockgate.rollouts.leader import Leadership
from lockgate.storage import audit, schema


def drive(world: Any, rollout: Any, *, ticks: int = 400, users: int = 6, **outcome: Any) -> Any:
    """Users come, time passes, the controller ticks, until the rollout is over."""
    numbers = itertools.count()
    for _ in range(ticks):
        for _ in range(users):
            world.visit(rollout, f"user-{next(numbers)}", **outcome)
        world.advance(3)
        world.controller.tick()
        if not world.rollouts.get(rollout.id).live:
            break
    return world.rollouts.get(rollout.id)


def test_a_good_candidate_goes_through_every_phase_and_is_promoted(world: Any) -> None:
    rollout = world.started()
    done = drive(world, rollout)
    assert done.status == "promoted", world.rollouts.status(rollout.id).decision
    assert world.events(rollout) == ["started", "phase", "phase", "phase", "promoted"]
    route = world.route()
    assert (route.stable, route.candidate, route.weight, route.mirror) == (world.ref(2), None, 0, 0)
    assert route.lease_until is None
    (deployed,) = world.rollouts.deployments("dev")
    assert (deployed.stable, deployed.previous) == (world.ref(2), world.ref(1))
    assert deployed.warm_until == pytest.approx(done.ended_at + 86400)
    assert "safe grounded E = " in done.reason
    with world.control.read() as connection:
        assert audit.verify(connection) > 0


def test_a_candidate_that_costs_three_times_as_much_is_rolled_back_and_held(world: Any) -> None:
    rollout = world.started()
    done = drive(world, rollout, candidate={"cost_nano": 3000})
    assert done.status == "rolled_back"
    assert "harm cost_usd E = " in done.reason
    assert "= m/α (3 metrics and the fast path, α 5 %)" in done.reason
    route = world.route()
    assert (route.stable, route.candidate) == (world.ref(1), None)
    (alert,) = world.alerts
    assert alert[1:3] == ("rollback", "critical")
    with world.control.read() as connection:
        assert store.hold(connection, "dev", "triage", world.ref(2).effective_digest)


def test_a_candidate_that_answers_worse_is_rolled_back(world: Any) -> None:
    done = drive(world, world.started(), candidate={"score": 0.4})
    assert done.status == "rolled_back"
    assert "harm grounded" in done.reason


def test_a_candidate_that_always_fails_is_stopped_by_the_fast_path_within_a_few_units(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    failing = {"status": "failed", "error_type": "code_error", "ended_at": None}
    for number in range(8):
        world.visit(rollout, f"user-{number}", candidate=failing | {"ended_at": world.clock() + 1})
    world.controller.tick()  # at once: not even idle yet
    done = world.rollouts.get(rollout.id)
    assert done.status == "rolled_back"
    assert "fast path" in done.reason
    assert "8 of 8 candidate units failed" in done.reason


def test_no_traffic_never_rolls_back_and_never_promotes(world: Any) -> None:
    rollout = world.started()
    for _ in range(30):
        world.advance(600)
        world.controller.tick()
    now = world.rollouts.get(rollout.id)
    assert now.status == "running"
    assert now.current.weight == 10  # the shadow phase has a maximum; the first canary phase wants a unit
    status = world.rollouts.status(rollout.id)
    assert status.decision.verdict == "inconclusive"
    assert "0 of 1 candidate units" in status.decision.message


def test_the_candidate_gets_nothing_until_a_host_serves_it(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    world.serve(1)
    rollout = world.rollouts.deploy("triage@2", "dev").rollout
    world.advance(100)
    world.controller.tick()
    route = world.route()
    assert route.candidate == world.ref(2)  # named, so that the supervisor starts its host
    assert (route.weight, route.mirror) == (0, 0)
    assert world.rollouts.status(rollout.id).situation.ready is False
    world.serve(2)
    world.controller.tick()
    assert world.route().mirror == 100
    assert world.rollouts.get(rollout.id).phase_started_at == world.clock()  # its clock starts now
    world.stop(2)
    world.controller.tick()
    assert world.route().mirror == 0


def test_a_host_that_is_silent_does_not_count(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    assert world.route().mirror == 100
    world.clock.advance(controller.HOST_SECONDS + 1)  # no heartbeat meanwhile
    world.controller.tick()
    assert world.route().mirror == 0
    assert world.rollouts.get(rollout.id).live


def test_each_tick_keeps_the_lease_and_without_ticks_it_lapses(world: Any) -> None:
    world.started()
    world.controller.tick()
    for _ in range(10):
        world.advance(3)
        world.controller.tick()
        assert world.route().lease_until > world.clock() + LEASE_SECONDS / 2
    world.advance(LEASE_SECONDS)
    assert in_force(world.route(), world.clock()).candidate is None


def test_a_tick_with_nothing_to_do_writes_nothing(world: Any) -> None:
    world.started()
    world.controller.tick()
    before = {table: world.rows(table) for table in schema.control.sorted_tables}
    world.controller.tick()
    assert {table: world.rows(table) for table in schema.control.sorted_tables} == before


class Killed(BaseException):
    """A kill -9, as far as Python can tell: no except clause catches it."""


@pytest.mark.parametrize(
    ("outcome", "crash_in"),
    [
        ("promoted", "update_rollout"),
        ("promoted", "save_deployment"),
        ("promoted", "save_route"),
        ("rolled_back", "add_event"),
    ],
)
def test_a_crash_between_any_two_steps_is_made_good_by_the_next_tick(
    world: Any, monkeypatch: pytest.MonkeyPatch, crash_in: str, outcome: str
) -> None:
    rollout = world.started()
    candidate = {} if outcome == "promoted" else {"cost_nano": 5000}
    real, crashes = getattr(store, crash_in), itertools.count(1)

    def crash_after_it(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        if next(crashes) % 3 == 1:
            raise Killed
        return result

    numbers = itertools.count()
    for _ in range(400):
        for _ in range(6):
            world.visit(rollout, f"user-{next(numbers)}", candidate=candidate)
        world.advance(3)
        with monkeypatch.context() as patch:
            patch.setattr(store, crash_in, crash_after_it)
            with contextlib.suppress(Killed):
                world.controller.tick()
        world.controller = Controller(world.control, world.clock, alert=lambda *alert: world.alerts.append(alert))
        if not world.rollouts.get(rollout.id).live:
            break
    done = world.rollouts.get(rollout.id)
    assert done.status == outcome
    assert world.events(rollout).count(outcome) == 1
    expected = world.ref(2) if outcome == "promoted" else world.ref(1)
    assert world.route().stable == expected
    assert world.route().candidate is None
    assert world.rollouts.deployments("dev")[0].stable == expected


def test_a_restart_resumes_a_rollout_where_it_was(world: Any) -> None:
    rollout = world.started()
    drive(world, rollout, ticks=8)
    before = world.rollouts.status(rollout.id)
    assert before.rollout.phase > 0
    world.controller = Controller(world.control, world.clock)
    world.advance(1)
    world.controller.tick()
    after = world.rollouts.status(rollout.id)
    assert after.rollout.phase >= before.rollout.phase
    assert after.traffic.candidate_units >= before.traffic.candidate_units
    assert drive(world, rollout).status == "promoted"


def test_the_evidence_can_be_computed_again_from_the_runs(world: Any) -> None:
    rollout = world.started()
    numbers = itertools.count()
    for step in range(200):  # until candidates have come, by chance; what ends the rollout also ends its evidence
        for _ in range(3):
            spoiled = {"status": "failed", "error_type": "model_error"} if step % 9 == 4 else {}
            world.visit(rollout, f"user-{next(numbers)}", candidate={"cost_nano": 1000 + 40 * step, **spoiled})
        world.advance(1.5)
        world.controller.tick()
        known = world.rollouts.status(rollout.id)
        if not known.rollout.live or (step >= 25 and known.traffic.candidate_units >= 3):
            break
    stored = known.readings
    again = world.rollouts.recompute(rollout.id)
    assert sum(reading.candidate_units for reading in stored) >= 3
    for left, right in zip(stored, again, strict=True):
        for one, other in zip(msgspec.structs.astuple(left), msgspec.structs.astuple(right), strict=True):
            assert one == (pytest.approx(other) if isinstance(other, float) else other)


def test_a_retry_goes_on_with_the_evidence_of_the_first_try(world: Any) -> None:
    rollout = world.started()
    drive(world, rollout, ticks=6)
    before = world.rollouts.status(rollout.id)
    assert before.traffic.pairs >= 4
    world.rollouts.abort(rollout.id, reason="lunch")
    again = world.rollouts.retry(rollout.id)
    world.advance(1)
    world.controller.tick()
    status = world.rollouts.status(again.id)
    assert status.traffic.pairs >= before.traffic.pairs
    for left, right in zip(before.readings, status.readings, strict=True):
        assert right.candidate_units + right.pairs >= left.candidate_units + left.pairs


def test_what_a_user_decides_meanwhile_wins(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = world.started()
    real = gather.situation

    def abort_meanwhile(*arguments: Any, **more: Any) -> Any:
        found = real(*arguments, **more)
        if world.rollouts.get(rollout.id).live:
            world.rollouts.abort(rollout.id, reason="by hand")
        return found

    monkeypatch.setattr(gather, "situation", abort_meanwhile)
    assert world.controller.reconcile(rollout.id) is None
    assert world.rollouts.get(rollout.id).status == "aborted"
    assert world.route().candidate is None


def test_a_leader_that_was_overtaken_writes_nothing(world: Any) -> None:
    rollout = world.started()
    old = Leadership(world.control, world.clock, name="control", holder="old", seconds=5)
    new = Leadership(world.control, world.clock, name="control", holder="new", seconds=5)
    assert old.acquire()
    world.advance(6)
    assert new.acquire()
    late = Controller(world.control, world.clock, lead=old)
    before = world.route()
    with pytest.raises(Conflict, match="'new' does"):
        late.reconcile(rollout.id)
    assert world.route() == before
    Controller(world.control, world.clock, lead=new).tick()
    assert world.route().mirror == 100


def test_one_broken_rollout_does_not_stop_the_others(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good = world.started()
    real = Controller.reconcile

    def break_first(self: Controller, rollout_id: str) -> Any:
        if rollout_id == "rollout_broken":
            raise RuntimeError("boom")
        return real(self, rollout_id)

    with world.control.write() as connection:
        store.insert_rollout(
            connection,
            msgspec.structs.replace(world.rollouts.get(good.id), id="rollout_broken", agent="other", created_at=0.0),
        )
    monkeypatch.setattr(Controller, "reconcile", break_first)
    world.controller.tick()
    assert world.route().mirror == 100


def test_a_rollout_that_takes_too_long_is_called_inconclusive_and_goes_on(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    world.serve(1, 2)
    rollout = world.rollouts.deploy("triage@2", "dev").rollout
    slow = msgspec.structs.replace(rollout, plan=msgspec.structs.replace(rollout.plan, max_seconds=60.0))
    with world.control.write() as connection:
        assert store.update_rollout(connection, rollout, slow)
    world.advance(61)
    world.controller.tick()
    assert [alert[1] for alert in world.alerts] == ["rollout_inconclusive"]
    assert world.rollouts.get(rollout.id).live


def test_a_stable_version_that_changed_under_it_aborts_the_rollout(world: Any) -> None:
    rollout = world.started()
    with world.control.write() as connection:
        deployed = store.deployment(connection, "dev", "triage")
        assert deployed is not None
        store.save_deployment(connection, msgspec.structs.replace(deployed, stable=world.ref(3)))
    world.controller.tick()
    assert world.rollouts.get(rollout.id).status == "aborted"
    assert world.route().stable == world.ref(3)


def test_a_direct_rollout_ends_as_soon_as_its_host_is_there_and_a_staged_one_is_left_to_the_full_tick(
    world: Any,
) -> None:
    world.rollouts.deploy("triage@1", "dev")
    world.serve(1)
    direct = world.rollouts.deploy("triage@2", "dev", direct=True).rollout
    world.controller.tick_direct()
    assert world.rollouts.get(direct.id).live  # nobody serves it yet
    world.serve(2)
    paused = world.rollouts.pause(direct.id, reason="wait", by="test")
    world.controller.tick_direct()
    assert world.rollouts.get(paused.id).live
    world.rollouts.resume(direct.id, by="test")
    world.controller.tick_direct()
    assert world.rollouts.get(direct.id).status == "promoted"
    assert world.route().stable == world.ref(2)

    world.serve(3)
    staged = world.rollouts.deploy("triage@3", "dev").rollout
    before = world.events(staged)
    world.controller.tick_direct()
    assert world.events(staged) == before
