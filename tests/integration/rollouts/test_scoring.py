"""Completed runs get the scores that need no expected answer, once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from lockgate.rollouts import scoring
from lockgate.rollouts.scoring import LiveScoring
from lockgate.storage import schema


def scores(world: Any) -> dict[str, float]:
    return {row.run_id: row.score for row in world.rows(schema.run_scores) if row.metric == "grounded"}


def test_completed_runs_are_scored_once(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    good = world.run(1, "stable", "a", score=None)
    bad = world.run(1, "stable", "b", score=None, output="nonsense")
    world.run(1, "stable", "c", status="failed", error_type="model_error")
    world.run(1, "stable", "d", status="running", ended_at=None)
    live = LiveScoring(world.control, world.clock, world.project.root)
    assert live.tick() == 2
    assert scores(world) == {good: 1.0, bad: 0.0}
    assert live.tick() == 0


def test_runs_of_agents_without_live_metrics_are_left_alone(world: Any) -> None:
    path = world.project.root / "agents/triage.v1.yaml"
    text = path.read_text()
    start, end = text.index("  evals:"), text.index("  rollout:")
    path.write_text(text[:start] + text[end:])
    world.versions.lock()
    world.rollouts.deploy("triage@1", "dev")
    world.run(1, "stable", "a", score=None)
    assert LiveScoring(world.control, world.clock, world.project.root).tick() == 0


def test_old_runs_are_not_scored_any_more(world: Any) -> None:
    world.rollouts.deploy("triage@1", "dev")
    world.run(1, "stable", "a", score=None)
    world.advance(scoring.LOOK_BACK + 1)
    assert LiveScoring(world.control, world.clock, world.project.root).tick() == 0


def test_during_a_rollout_both_arms_are_scored_by_the_candidates_rubric(world: Any) -> None:
    path = world.project.root / "agents/triage.v2.yaml"
    path.write_text(path.read_text().replace('"^ok"', '"^fine"'))
    world.versions.lock()
    world.started()
    stable = world.run(1, "stable", "a", score=None, output="fine")
    shadow = world.run(2, "shadow", "a", score=None, output="ok")
    LiveScoring(world.control, world.clock, world.project.root).tick()
    assert {run: scores(world)[run] for run in (stable, shadow)} == {stable: 1.0, shadow: 0.0}


def test_a_stored_run_is_the_result_its_caller_got(world: Any) -> None:
    run_id = world.run(1, "stable", "a", model_calls=2, input_tokens=7)
    step = {
        "run_id": run_id,
        "seq": 1,
        "kind": "tool",
        "name": "read_orders",
        "request_hash": "h",
        "request": {"order_id": 7},
        "response": {"found": True},
        "status": "done",
        "started_at": 1.0,
    }
    with world.control.write() as connection:
        connection.execute(insert(schema.run_steps).values(**step))
    (row,) = world.rows(schema.runs)
    with world.control.read() as connection:
        result = scoring.result_of(connection, row)
    assert (result.status, result.output, result.model_calls, result.usage.input_tokens) == ("completed", "ok", 2, 7)
    assert [(used.name, used.arguments, used.result) for used in result.tools_used] == [
        ("read_orders", {"order_id": 7}, {"found": True})
    ]
