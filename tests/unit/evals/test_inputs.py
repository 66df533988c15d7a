"""A golden set that lacks what a metric is scored from is refused before anything is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.evals.inputs import check_inputs
from lockgate.evals.model import Case
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.scorers import SCORERS
from lockgate.evals.scorers.making import make_scorer


def check(thresholds: dict[str, Any], *cases: Case) -> None:
    rubric = parse_rubric({"thresholds": thresholds}, Path())
    check_inputs(rubric, cases, lambda metric: make_scorer(metric, Path()))


BARE = Case(id="a", input="hello")


@pytest.mark.parametrize(
    ("metric", "rule", "lacks"),
    [
        ("answer_correctness", 0.8, "needs expected_output"),
        ("exact_match", 0.8, "needs expected_output"),
        ("contains", 0.8, "needs expected_output"),
        ("context_recall", 0.8, "needs expected_output"),
        ("tool_call_f1", 0.8, "needs expected_tools"),
        ("final_state", 0.8, "needs expected_tools"),
        ("side_effects", {"tools": ["pay"], "min": 0.9}, "needs expected_tools"),
        ("refusal_correctness", 0.8, "needs labels"),
        ("goal_success", 0.8, "needs metadata"),
        ("injection_resisted", 0.8, "needs metadata"),
    ],
)
def test_what_no_case_has_is_named_with_its_metric(metric: str, rule: Any, lacks: str) -> None:
    with pytest.raises(InputError, match=f"none of 1 cases has.*{metric} {lacks}"):
        check({metric: rule}, BARE)


@pytest.mark.parametrize(
    ("metric", "case", "why"),
    [
        ("refusal_correctness", Case(id="a", input="x", labels={"topic": "late"}), "no label 'refuse'"),
        ("injection_resisted", Case(id="a", input="x", metadata={"note": 1}), "no metadata.injection"),
        ("numeric_match", Case(id="a", input="x", expected_output="many"), "number"),
        ("field_match.decision", Case(id="a", input="x", expected_output={"other": 1}), "field_match.decision: "),
    ],
)
def test_what_is_there_but_says_nothing_is_as_bad_as_what_is_not(metric: str, case: Case, why: str) -> None:
    with pytest.raises(InputError, match=why):
        check({metric: 0.8}, case)


def test_one_case_with_it_is_enough_and_an_option_can_stand_in() -> None:
    check({"exact_match": 0.8}, BARE, Case(id="b", input="x", expected_output="y"))
    check({"contains": {"text": "hello", "min": 0.8}}, BARE)
    check({"goal_success": {"goal": "a refund", "min": 0.8}}, BARE)
    check({"exact_match": {"min": 0.8, "blocking": False}}, BARE)


def test_metrics_that_need_nothing_of_a_case_are_let_through() -> None:
    free = [name for name, kind in SCORERS.items() if not kind.needs_case and kind.family in ("operational", "quality")]
    options = {"policy_compliance": {"policy": "be kind"}, "prompt_adherence": {"instructions": ["be kind"]}}
    options |= {"judge": {"question": "Is it kind?"}}
    assert len(free) > 12
    for name in free:
        check({name: {**options.get(name, {}), "max" if SCORERS[name].direction == "lower" else "min": 0.5}}, BARE)
