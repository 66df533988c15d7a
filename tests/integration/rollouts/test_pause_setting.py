"""A setting keeps rollouts in their phase; harm still rolls back."""

from __future__ import annotations

from typing import Any

from lockgate.settings.model import Scope
from lockgate.settings.service import Settings


def settings_of(world: Any) -> Settings:
    return Settings(world.control, world.clock, lambda: ["dev", "prod"])


def begin(world: Any) -> str:
    world.serve(1, 2)
    world.rollouts.deploy("triage@1", "dev")
    return str(world.rollouts.deploy("triage@2", "dev").rollout.id)


def phase_after_an_hour(world: Any, rollout: str) -> int:
    """The shadow phase ends after ten minutes at the latest."""
    for _ in range(2):
        world.controller.tick()
        world.advance(1800)
        world.controller.tick()
    return int(world.rollouts.get(rollout).phase)


def test_a_paused_environment_keeps_its_rollouts_in_their_phase(world: Any) -> None:
    rollout, settings = begin(world), settings_of(world)
    settings.set("rollout.pause", True, Scope(environment="dev"), actor="cli:ann", reason="freeze")
    assert phase_after_an_hour(world, rollout) == 0
    status = world.rollouts.status(rollout)
    assert "paused by the setting rollout.pause (environment 'dev'), by cli:ann: freeze" in status.decision.message
    assert status.rollout.status == "running"
    settings.unset("rollout.pause", Scope(environment="dev"), actor="cli:ann")
    assert phase_after_an_hour(world, rollout) > 0


def test_one_agent_may_go_on(world: Any) -> None:
    rollout, settings = begin(world), settings_of(world)
    settings.set("rollout.pause", True, Scope(environment="dev"), actor="cli:ann")
    settings.set("rollout.pause", False, Scope(environment="dev", agent="triage"), actor="cli:ann")
    assert phase_after_an_hour(world, rollout) > 0


def test_another_environments_pause_is_not_ours(world: Any) -> None:
    rollout = begin(world)
    settings_of(world).set("rollout.pause", True, Scope(environment="prod"), actor="cli:ann")
    assert phase_after_an_hour(world, rollout) > 0


def test_harm_rolls_back_all_the_same(world: Any) -> None:
    rollout = world.started()
    world.controller.tick()
    settings_of(world).set("rollout.pause", True, Scope(), actor="cli:ann", reason="freeze")
    failing = {"status": "failed", "error_type": "code_error", "ended_at": world.clock() + 1}
    for number in range(8):
        world.visit(rollout, f"user-{number}", candidate=failing)
    world.controller.tick()
    assert world.rollouts.get(rollout.id).status == "rolled_back"
