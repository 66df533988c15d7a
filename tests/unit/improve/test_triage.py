"""Which runs become candidates, and what becomes of a candidate."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.evals.model import Case
from lockgate.improve import triage
from lockgate.improve.model import Candidate, Finding, RunFacts


def make_run(run_id: str = "run_1", **fields: Any) -> RunFacts:
    values = {"agent": "a", "environment": "prod", "arm": "stable", "status": "completed", "input": "hello"}
    return RunFacts(id=run_id, **(values | fields))


def make_candidate(*findings: Finding) -> Candidate:
    return Candidate(
        id="candidate_1", agent="a", status="open", findings=list(findings), runs=1, weight=0.1, created_at=1.0
    )


@pytest.mark.parametrize(
    ("error_type", "reason"),
    [
        ("output_invalid", "error"),
        ("policy_refused", "error"),
        ("cost_exceeded", "budget_stop"),
        ("llm_calls_exceeded", "budget_stop"),
        (None, "error"),
    ],
)
def test_a_failed_run_is_a_candidate(error_type: str | None, reason: str) -> None:
    finding = triage.ended(make_run(status="failed", error_type=error_type, error="why"))
    assert finding is not None
    assert (finding.reason, finding.cause, finding.detail) == (reason, error_type or "unknown", "why")


@pytest.mark.parametrize("error_type", sorted(triage.NOT_THE_AGENTS))
def test_a_failure_that_says_nothing_of_the_agent_is_none(error_type: str) -> None:
    assert triage.ended(make_run(status="failed", error_type=error_type)) is None


@pytest.mark.parametrize("status", ["completed", "running", "suspended", "cancelled"])
def test_a_run_that_did_not_fail_is_none(status: str) -> None:
    assert triage.ended(make_run(status=status)) is None


@pytest.mark.parametrize(("score", "low"), [(0.84, True), (0.85, False), (0.9, False), (0.0, True), (None, False)])
def test_a_score_is_low_below_the_agents_own_threshold(score: float | None, low: bool) -> None:
    finding = triage.scored(make_run(), "faithfulness", score, "made up", {"faithfulness": 0.85})
    assert (finding is not None) == low


def test_without_a_threshold_low_is_below_a_half() -> None:
    finding = triage.scored(make_run(), "tone", 0.4, "", {"faithfulness": 0.85})
    assert finding is not None
    assert finding.detail == "0.40 is below 0.50"
    assert triage.scored(make_run(), "tone", 0.5, "", {}) is None


def test_floors_are_read_from_numbers_and_rules_but_not_from_upper_bounds() -> None:
    evals = {
        "rubric": {"dimensions": {"tone": 0.6, "faithfulness": 0.5}},
        "thresholds": {
            "faithfulness": 0.85,
            "answer": {"metric": "json_match", "min": 0.9},
            "relevance": {"threshold": 0.8},
            "cost_usd": {"max": 0.05},
            "latency": {"threshold": 12},
            "odd": True,
        },
    }
    assert triage.floors(evals) == {"tone": 0.6, "faithfulness": 0.85, "json_match": 0.9, "relevance": 0.8}
    assert triage.floors({"rubric": "evals/rubrics/a.yaml"}) == {}


@pytest.mark.parametrize(("rating", "found"), [(-1, True), (1, False)])
def test_only_a_bad_rating_is_a_candidate(rating: int, found: bool) -> None:
    assert (triage.complained(make_run(), rating, "") is not None) == found


def test_of_a_rollout_that_cost_too_much_the_dearest_candidate_runs_are_taken() -> None:
    runs = [make_run(f"run_{n}", arm="candidate", input=str(n), cost_nano=n) for n in range(9)]
    runs += [make_run("stable", arm="stable", cost_nano=100), make_run("lost", arm="shadow", error_type="unscored")]
    found = triage.rolled_back(runs, "rollout_1", "cost_usd: 1.9 times the stable version's")
    assert [finding.run_id for finding in found] == ["run_8", "run_7", "run_6", "run_5", "run_4"]
    assert {finding.cause for finding in found} == {"rollout_1"}


def test_of_a_slow_rollout_the_slowest_and_of_a_failing_one_the_failed() -> None:
    slow = make_run("slow", arm="candidate", input="s", started_at=0.0, ended_at=9.0)
    failed = make_run("failed", arm="candidate", input="f", status="failed", started_at=0.0, ended_at=1.0)
    found = triage.rolled_back([failed, slow], "r", "latency over the reference")
    assert [finding.run_id for finding in found] == ["slow", "failed"]
    assert [finding.run_id for finding in triage.rolled_back([failed, slow], "r", "errors")] == ["failed"]


def test_one_input_is_taken_once_from_a_rollout() -> None:
    runs = [make_run(f"run_{n}", arm="candidate", cost_nano=n) for n in range(3)]
    assert len(triage.rolled_back(runs, "r", "cost")) == 1


def test_the_same_message_is_the_same_candidate_however_it_is_wrapped() -> None:
    wrapped = {"messages": [{"role": "user", "content": "where  is\nmy order?"}]}
    assert triage.signature("a", wrapped) == triage.signature("a", " where is my order? ")
    assert triage.signature("b", wrapped) != triage.signature("a", wrapped)
    longer = {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "where is my order?"}]}
    assert triage.signature("a", longer) != triage.signature("a", wrapped)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_a_signature_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def turned(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: turned(item[key]) for key in reversed(item)}
        return [turned(each) for each in item] if isinstance(item, list) else item

    assert triage.signature("a", value) == triage.signature("a", turned(value))


def test_a_candidate_leads_with_its_most_telling_reason() -> None:
    complained = triage.complained(make_run("run_1"), -1, "no")
    failed = [
        triage.ended(make_run(name, status="failed", error_type="output_invalid", error=name)) for name in ("b", "c")
    ]
    assert complained is not None
    candidate = make_candidate(complained, *(finding for finding in failed if finding))
    assert candidate.reasons == ["error", "feedback"]
    assert candidate.leading.run_id == "c"


def test_a_case_carries_where_it_came_from_and_shares_its_cluster_with_its_like() -> None:
    run = make_run(status="failed", error_type="output_invalid", error="not JSON", effective_digest="sha256:e")
    finding = triage.ended(run)
    assert finding is not None
    case = triage.to_case(make_candidate(finding), run, expected_output={"decision": "deny"}, tags=["late", "error"])
    assert (case.source_run, case.input, case.expected_output) == ("run_1", "hello", {"decision": "deny"})
    assert (case.tags, case.cluster) == (["regression", "error", "late"], "error:output_invalid")
    assert case.id.startswith("a-")
    assert case.metadata == {"environment": "prod", "effective_digest": "sha256:e", "found": "not JSON"}


def test_a_mined_case_weighs_its_share_of_traffic() -> None:
    golden = [Case(id=str(n), input="x") for n in range(60)] + [Case(id="mined", input="x", source_run="run_0")]
    assert triage.case_weight(0.01, golden) == 0.6  # 1 % of traffic, which 60 ordinary cases stand for
    assert triage.case_weight(0.5, golden) == 1.0
    assert triage.case_weight(0.0, golden) == 0.001
    assert triage.case_weight(0.25, []) == 0.25
