"""Deploying under an environment's policy, and steering what is on its way."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from lockgate.errors import Conflict, InputError, NotFound, Refused
from lockgate.rollouts import store
from lockgate.storage import schema


def test_the_first_version_serves_at_once(world: Any) -> None:
    done = world.rollouts.deploy("triage@1", "dev", by="ann")
    assert (done.outcome, done.rollout) == ("stable", None)
    assert world.route().stable == world.ref(1)
    assert world.route().lease_until is None
    (entry,) = world.rows(schema.audit)
    assert (entry.actor, entry.action, entry.subject) == ("ann", "deploy", "dev/triage")


def test_prod_wants_a_passing_gate_for_exactly_this_version(world: Any) -> None:
    with pytest.raises(Refused, match="has not been through the eval gate") as caught:
        world.rollouts.deploy("triage@1", "prod")
    assert "lockgate eval --agent triage@" in (caught.value.remedy or "")
    world.attest(2, "pass")  # of another version
    with pytest.raises(Refused):
        world.rollouts.deploy("triage@1", "prod")
    world.attest(1, "inconclusive")
    with pytest.raises(Refused, match="its eval gate says inconclusive"):
        world.rollouts.deploy("triage@1", "prod")
    world.clock.advance(1)
    world.attest(1, "pass")
    assert world.rollouts.deploy("triage@1", "prod").outcome == "stable"
    world.clock.advance(1)
    world.attest(2, "fail")  # the newest counts
    with pytest.raises(Refused, match="its eval gate says fail"):
        world.rollouts.deploy("triage@2", "prod")


def test_a_forged_attestation_does_not_count(world: Any) -> None:
    world.attest(1, "fail")
    with world.control.write() as connection:
        connection.execute(update(schema.attestations).values(verdict="pass"))
    with pytest.raises(Refused):
        world.rollouts.deploy("triage@1", "prod")


def test_an_override_is_audited_with_its_reason(world: Any) -> None:
    world.rollouts.deploy("triage@1", "prod", override_reason="incident 12", by="ann")
    (entry,) = world.rows(schema.audit)
    assert entry.details["override"] == "incident 12"
    assert entry.details["overridden"] == ["it has not been through the eval gate, or that was inconclusive"]


def test_an_unknown_environment_or_version_is_named(world: Any) -> None:
    with pytest.raises(NotFound, match="no environment 'qa'"):
        world.rollouts.deploy("triage@1", "qa")
    with pytest.raises((NotFound, InputError)):
        world.rollouts.deploy("triage@9", "dev")


def test_what_serves_already_only_gets_its_settings(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    assert world.rollouts.deploy("triage@1", "dev").message.endswith("serves dev already")
    path = world.project.root / "agents/triage.v1.yaml"
    path.write_text(path.read_text() + "  budgets: {daily_usd: 5}\n")
    world.versions.lock()
    done = world.rollouts.deploy("triage@1", "dev")
    assert done.outcome == "settings"
    assert world.route().settings.daily_usd == 5


def test_one_rollout_at_a_time(world: Any) -> None:
    world.started()
    with pytest.raises(Conflict, match="triage has a rollout in 'dev' already"):
        world.rollouts.deploy("triage@3", "dev")


def test_a_direct_deploy_takes_over_when_its_host_is_ready(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    world.serve(1)
    done = world.rollouts.deploy("triage@2", "dev", direct=True)
    assert done.outcome == "rollout"
    world.controller.tick()
    assert world.route().stable == world.ref(1)  # nobody is cut off meanwhile
    world.serve(2)
    world.controller.tick()
    assert world.route().stable == world.ref(2)
    assert world.rollouts.get("triage").status == "promoted"


def test_a_direct_deploy_where_nothing_runs_is_done_at_once(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    assert world.rollouts.deploy("triage@2", "dev", direct=True).outcome == "stable"
    assert world.route().stable == world.ref(2)


def test_abort_goes_back_at_once_and_holds_the_candidate(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    world.rollouts.abort("triage", reason="complaints", by="ann")
    assert world.route().candidate is None
    with pytest.raises(Refused, match="held back: aborted: complaints"):
        world.rollouts.deploy("triage@2", "dev")
    with pytest.raises(Conflict, match="is over: aborted"):
        world.rollouts.abort(rollout.id, reason="again")
    again = world.rollouts.retry("triage", "dev")
    assert again.id != rollout.id
    assert again.live
    with world.control.read() as connection:
        assert store.hold(connection, "dev", "triage", world.ref(2).effective_digest) is None


def test_an_override_goes_past_a_hold(world: Any) -> None:
    world.started()
    world.rollouts.abort("triage", reason="complaints")
    done = world.rollouts.deploy("triage@2", "dev", override_reason="it was the other service")
    assert done.rollout is not None


def test_a_retry_is_refused_while_the_evidence_against_it_stands(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    for number in range(60):
        world.visit(rollout, f"u{number}", candidate={"score": 0.0})
    world.advance(5)
    world.controller.tick()
    assert world.rollouts.get(rollout.id).status == "rolled_back"
    with pytest.raises(Refused, match=r"the evidence against triage@.* stands: harm grounded E"):
        world.rollouts.retry(rollout.id)


def test_after_an_abort_every_user_is_back_on_stable_at_once(world: Any) -> None:
    rollout = world.started()
    assert world.rollouts.assign(rollout.id, "ann", 100, world.clock()) == "candidate"
    world.rollouts.abort(rollout.id, reason="complaints")
    for key in ("ann", "bob"):  # a gateway with an old route still asks
        assert world.rollouts.assign(rollout.id, key, 100, world.clock()) == "stable"


def test_a_retry_is_refused_when_the_fast_path_stopped_it(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    for number in range(8):
        failing = {"status": "failed", "error_type": "code_error"}
        world.visit(rollout, f"u{number}", candidate=failing)
    world.controller.tick()
    assert world.rollouts.get(rollout.id).status == "rolled_back"
    with pytest.raises(Refused, match="fast path E"):
        world.rollouts.retry(rollout.id)


def test_promote_by_hand_needs_a_host(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    world.serve(1)
    rollout = world.rollouts.deploy("triage@2", "dev").rollout
    with pytest.raises(Refused, match="no host serves triage@"):
        world.rollouts.promote(rollout.id, reason="checked")
    world.serve(2)
    done = world.rollouts.promote(rollout.id, reason="checked", by="ann")
    assert (done.status, done.reason) == ("promoted", "by hand: checked")
    assert world.route().stable == world.ref(2)


def test_a_pause_stays_in_the_phase_and_a_resume_goes_on(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    world.rollouts.pause("triage", reason="freeze")
    world.advance(700)  # past the shadow phase's maximum
    world.controller.tick()
    now = world.rollouts.get(rollout.id)
    assert (now.status, now.phase) == ("paused", 0)
    assert world.route().mirror == 100  # traffic goes on
    world.rollouts.resume("triage")
    world.controller.tick()
    assert world.rollouts.get(rollout.id).phase == 1
    assert world.events(rollout) == ["started", "phase", "paused", "resumed", "phase"]


def test_undo_brings_the_warm_previous_version_back_at_once(world: Any) -> None:
    rollout = world.started()
    world.rollouts.promote(rollout.id, reason="checked")
    after = world.rollouts.undo("triage", "dev", reason="wrong refunds", by="ann")
    assert (after.stable, after.previous) == (world.ref(1), None)
    assert world.route().stable == world.ref(1)
    with pytest.raises(Refused, match="held back: undone: wrong refunds"):
        world.rollouts.deploy("triage@2", "dev")
    with pytest.raises(Refused, match="no warm previous version"):
        world.rollouts.undo("triage", "dev", reason="again")


def test_undo_aborts_a_rollout_that_is_on(world: Any) -> None:
    rollout = world.started()
    world.rollouts.promote(rollout.id, reason="checked")
    later = world.rollouts.deploy("triage@3", "dev").rollout
    world.rollouts.undo("triage", "dev", reason="v2 is bad")
    assert world.rollouts.get(later.id).status == "aborted"
    assert world.route().stable == world.ref(1)
    assert world.route().candidate is None


def test_undo_is_refused_when_the_previous_version_is_cold(world: Any) -> None:
    rollout = world.started()
    world.rollouts.promote(rollout.id, reason="checked")
    world.advance(86401)
    with pytest.raises(Refused, match="no warm previous version"):
        world.rollouts.undo("triage", "dev", reason="late")


def test_a_rollout_is_found_by_id_by_a_part_of_it_and_by_agent(world: Any) -> None:
    rollout = world.started()
    for ref in (rollout.id, rollout.id[:20], "triage"):
        assert world.rollouts.get(ref, "dev").id == rollout.id
    with pytest.raises(NotFound, match="no rollout of 'other' in 'dev'"):
        world.rollouts.get("other", "dev")


def test_simulations_know_the_baselines_traffic_once_there_is_some(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    _, assumed = world.rollouts.plan_of("triage@2", "dev")
    assert assumed.source == "assumed"
    for number in range(10):
        world.run(1, "stable", f"u{number}", score=0.5 + number % 2 / 2, cost_nano=1000)
    world.advance(5)
    plan, seen = world.rollouts.plan_of("triage@2", "dev")
    assert seen.source.startswith("10 units of ")
    assert (seen.score, seen.score_spread, seen.cost_spread) == (0.75, 0.25, 0.0)
    assert [spec.name for spec in plan.metrics] == ["errors", "cost_usd", "grounded"]


def test_an_unpinned_model_is_refused_where_the_policy_says_so(world: Any) -> None:
    path = world.project.root / "agents/triage.v1.yaml"
    path.write_text(path.read_text().replace("gpt-4o-mini-2024-07-18", "gpt-4o"))
    world.versions.lock()
    with pytest.raises(Refused, match=r"model 'gpt-4o' is not pinned"):
        world.rollouts.deploy("triage@1", "prod")


def test_only_the_native_loop_is_shadowed(world: Any) -> None:
    plan, _ = world.rollouts.plan_of("triage@2", "dev")
    assert plan.phases[0].name == "shadow"
    (world.project.root / "support").mkdir()
    (world.project.root / "support/__init__.py").touch()
    (world.project.root / "support/agent.py").write_text("def answer(input):\n    return 'ok'\n")
    path = world.project.root / "agents/triage.v3.yaml"
    text = path.read_text().replace("  system_prompt: prompts/triage.v3.md\n", "")
    path.write_text(text + '  framework: {kind: python, entrypoint: "support.agent:answer"}\n')
    world.versions.lock()
    plan, _ = world.rollouts.plan_of("triage@3", "dev")
    assert [phase.name for phase in plan.phases] == ["10 %", "50 %"]
