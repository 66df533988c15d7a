"""From runs in the database to cases in a file, on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from lockgate.errors import Conflict, InputError, NotFound
from lockgate.evals.golden import append_case, read_cases
from lockgate.evals.model import Case
from lockgate.improve.service import HORIZON, Expectation, Triage
from lockgate.storage import audit, schema
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock

NOW = 1_700_000_000.0
DENY = Expectation(output={"decision": "deny"})


def add_run(control: Database, run_id: str, **fields: Any) -> None:
    values: dict[str, Any] = {
        "agent": "a",
        "environment": "prod",
        "behaviour_digest": "sha256:b",
        "effective_digest": "sha256:e",
        "arm": "stable",
        "assignment_key": run_id,
        "tenant": "t",
        "status": "completed",
        "input": f"input of {run_id}",
        "trace_id": "0" * 32,
        "started_at": NOW - 1,
        "ended_at": NOW,
    }
    with control.write() as connection:
        connection.execute(insert(schema.runs).values(id=run_id, **(values | fields)))


def fail(control: Database, run_id: str, **fields: Any) -> None:
    add_run(control, run_id, **({"status": "failed", "error_type": "output_invalid", "error": "not JSON"} | fields))


def add(control: Database, table: Any, **values: Any) -> None:
    with control.write() as connection:
        connection.execute(insert(table).values(**values))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def triage(control: Database, clock: FakeClock) -> Triage:
    return Triage(control, clock)


def test_every_kind_of_failure_is_captured_once(control: Database, triage: Triage) -> None:
    fail(control, "run_error")
    fail(control, "run_budget", error_type="cost_exceeded")
    fail(control, "run_lost", error_type="host_lost")
    for name in ("run_low", "run_fine", "run_refused", "run_sad", "run_glad"):
        add_run(control, name)
    add(control, schema.run_scores, run_id="run_low", metric="tone", score=0.2, reason="rude", scored_at=NOW)
    add(control, schema.run_scores, run_id="run_fine", metric="tone", score=0.9, scored_at=NOW)
    add(control, schema.run_scores, run_id="run_glad", metric="tone", score=None, reason="skipped", scored_at=NOW)
    approval = {"id": "ap", "run_id": "run_refused", "seq": 1, "agent": "a", "environment": "prod", "arguments": {}}
    approval |= {"tool": "issue_refund", "arguments_hash": "h", "effective_digest": "e", "policy_digest": "p"}
    approval |= {"status": "rejected", "requested_at": NOW, "decided_at": NOW, "decided_by": "ann", "reason": "no"}
    add(control, schema.approvals, **approval)
    triage.give_feedback("run_sad", -1, comment="wrong order", author="c")
    triage.give_feedback("run_glad", 1, author="c")

    assert triage.capture() == 5
    found = {(finding.run_id, finding.reason, finding.cause) for item in triage.list() for finding in item.findings}
    assert found == {
        ("run_error", "error", "output_invalid"),
        ("run_budget", "budget_stop", "cost_exceeded"),
        ("run_low", "low_score", "tone"),
        ("run_refused", "rejected_approval", "issue_refund"),
        ("run_sad", "feedback", "rating"),
    }
    assert triage.capture() == 0
    assert Triage(control, FakeClock(NOW)).capture() == 0  # another process looks from the start


def test_the_runs_that_brought_a_rollout_down_are_captured(control: Database, triage: Triage) -> None:
    rollout = {"id": "ro", "environment": "prod", "agent": "a", "plan": {}, "settings": {}, "phase": 1}
    rollout |= {
        f"{side}_{kind}": "sha256:x" for side in ("baseline", "candidate") for kind in ("behaviour", "effective")
    }
    rollout |= {"status": "rolled_back", "reason": "cost_usd: 2.1 times", "created_by": "ann", "phase_started_at": NOW}
    rollout |= {"created_at": NOW, "updated_at": NOW, "ended_at": NOW}
    add(control, schema.rollouts, **rollout)
    for number in range(8):
        add_run(control, f"run_{number}", arm="candidate", rollout_id="ro", cost_nano=number)
    add_run(control, "run_stable", rollout_id="ro", cost_nano=99)
    triage.capture()
    findings = [finding for item in triage.list() for finding in item.findings]
    assert {finding.run_id for finding in findings} == {f"run_{number}" for number in range(3, 8)}
    assert {finding.detail for finding in findings} == {"cost_usd: 2.1 times"}


def test_the_agents_threshold_in_force_says_what_is_low(control: Database, triage: Triage) -> None:
    deployment = {"environment": "prod", "agent": "a", "stable_behaviour": "b", "stable_effective": "e"}
    settings = {"evals": {"thresholds": {"tone": 0.95}}}
    add(control, schema.deployments, **deployment, settings=settings, updated_at=NOW, updated_by="ann")
    for name, environment in (("run_prod", "prod"), ("run_dev", "dev")):
        add_run(control, name, environment=environment)
        add(control, schema.run_scores, run_id=name, metric="tone", score=0.9, scored_at=NOW)
    triage.capture()
    assert [item.leading.run_id for item in triage.list()] == ["run_prod"]


def test_one_input_that_fails_often_is_one_candidate_with_its_share_of_traffic(
    control: Database, triage: Triage
) -> None:
    for number in range(3):
        fail(
            control,
            f"run_{number}",
            input="my  refund?" if number else {"messages": [{"role": "user", "content": "my refund?"}]},
        )
    for number in range(3, 10):
        add_run(control, f"run_{number}")
    triage.capture()
    triage.give_feedback("run_1", -1, author="c")
    triage.capture()
    (candidate,) = triage.list()
    assert (candidate.runs, len(candidate.findings), candidate.reasons) == (3, 4, ["error", "feedback"])
    assert candidate.weight == pytest.approx(3 / 10)


def test_a_low_score_stands_for_the_runs_that_were_scored(control: Database, triage: Triage) -> None:
    for number in range(20):
        add_run(control, f"run_{number}")
    for number in range(4):
        score = 0.1 if number == 0 else 1.0
        add(control, schema.run_scores, run_id=f"run_{number}", metric="tone", score=score, scored_at=NOW)
    triage.capture()
    assert [item.weight for item in triage.list()] == [0.25]


def test_what_happens_after_a_capture_is_found_by_the_next(control: Database, triage: Triage, clock: FakeClock) -> None:
    triage.capture()
    clock.advance(3600)
    fail(control, "run_late", ended_at=clock() - 5)
    assert triage.capture() == 1


def test_what_is_older_than_the_horizon_is_left_alone(control: Database, triage: Triage) -> None:
    fail(control, "run_old", ended_at=NOW - HORIZON - 1)
    assert triage.capture() == 0


def test_a_promoted_candidate_is_a_case_in_the_file(control: Database, triage: Triage, tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"id": "c1", "input": "x"}\n')
    fail(control, "run_1")
    triage.capture()
    (candidate,) = triage.list()
    case = triage.promote(
        candidate.id, golden, DENY, who="ann", append=append_case, existing=read_cases(golden), tags=["late"]
    )
    assert golden.read_text().startswith('{"id": "c1", "input": "x"}\n')
    assert read_cases(golden)[1] == case
    assert (case.source_run, case.input, case.expected_output) == ("run_1", "input of run_1", {"decision": "deny"})
    assert triage.list() == []
    (decided,) = triage.list(status="promoted")
    assert (decided.case_id, decided.decided_by) == (case.id, "ann")
    with control.read() as connection:
        assert connection.execute(select(schema.audit.c.action, schema.audit.c.actor)).all() == [
            ("candidate.promoted", "ann")
        ]
        assert audit.verify(connection) == 1


def test_a_candidate_is_decided_once(control: Database, triage: Triage, tmp_path: Path) -> None:
    fail(control, "run_1")
    triage.capture()
    (candidate,) = triage.list()
    assert triage.reject(candidate.id, who="ann", why="fine").status == "rejected"
    for decide in (
        lambda: triage.reject(candidate.id, who="bob"),
        lambda: triage.promote(candidate.id, tmp_path / "g.jsonl", DENY, who="bob", append=append_case),
    ):
        with pytest.raises(Conflict, match="rejected by ann"):
            decide()
    assert not (tmp_path / "g.jsonl").exists()


def test_a_file_that_cannot_be_written_leaves_the_candidate_open(
    control: Database, triage: Triage, tmp_path: Path
) -> None:
    fail(control, "run_1")
    triage.capture()
    (candidate,) = triage.list()

    def full(path: Path, case: Case) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        triage.promote(candidate.id, tmp_path / "g.jsonl", DENY, who="ann", append=full)
    assert [item.status for item in triage.list()] == ["open"]


def test_a_failure_seen_again_shares_the_decision_on_it(control: Database, triage: Triage) -> None:
    fail(control, "run_1", input="x")
    triage.capture()
    triage.reject(triage.list()[0].id, who="ann")
    fail(control, "run_2", input="x")
    assert triage.capture() == 1
    assert triage.list() == []
    assert [item.runs for item in triage.list(status="rejected")] == [2]


def test_the_answer_given_can_be_the_one_expected(control: Database, triage: Triage, tmp_path: Path) -> None:
    add_run(control, "run_1", output={"decision": "deny"})
    candidate = triage.flag("run_1", who="ann", note="good one")
    accept = Expectation(accept_output=True)
    case = triage.promote(candidate.id, tmp_path / "g.jsonl", accept, who="ann", append=append_case)
    assert case.expected_output == {"decision": "deny"}


@pytest.mark.parametrize(
    ("expectation", "says"),
    [
        (Expectation(), "needs something to be expected"),
        (Expectation(accept_output=True), "no output to accept"),
        (Expectation(accept_output=True, output="x"), "exclude each other"),
    ],
)
def test_a_case_that_expects_nothing_is_refused(
    control: Database, triage: Triage, tmp_path: Path, expectation: Expectation, says: str
) -> None:
    fail(control, "run_1")
    candidate = triage.flag("run_1", who="ann")
    with pytest.raises(InputError, match=says):
        triage.promote(candidate.id, tmp_path / "g.jsonl", expectation, who="ann", append=append_case)


def test_what_does_not_exist_is_said(triage: Triage) -> None:
    for ask in (
        lambda: triage.show("candidate_0"),
        lambda: triage.flag("run_0", who="ann"),
        lambda: triage.give_feedback("run_0", 1, author="c"),
    ):
        with pytest.raises(NotFound):
            ask()


def test_a_rating_is_up_or_down(control: Database, triage: Triage) -> None:
    add_run(control, "run_1")
    with pytest.raises(InputError, match="not 5"):
        triage.give_feedback("run_1", 5, author="c")


def test_the_list_is_newest_first_and_can_be_narrowed(control: Database, triage: Triage, clock: FakeClock) -> None:
    for number, agent in enumerate(["a", "b", "a"]):
        fail(control, f"run_{number}", agent=agent, ended_at=clock())
        triage.capture()
        clock.advance(10)
    assert [item.leading.run_id for item in triage.list()] == ["run_2", "run_1", "run_0"]
    assert [item.leading.run_id for item in triage.list(agent="a", limit=1)] == ["run_2"]


def test_a_run_deleted_since_leaves_its_candidate_listed(control: Database, triage: Triage) -> None:
    fail(control, "run_1")
    triage.capture()
    with control.write() as connection:
        connection.execute(update(schema.runs).values(id="run_gone"))
    assert len(triage.list()) == 1
