"""The example's data says the same thing everywhere: cases, messages, orders and the refund policy in code."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockgate.bootstrap import open_app
from lockgate.demo.stage import AGENT, example
from lockgate.demo.traffic import read_messages
from lockgate.evals import golden
from lockgate.evals.model import Case
from lockgate.evals.rubric import check_decides, parse_rubric
from lockgate.evals.scorers.making import live_metrics
from lockgate.evals.scorers.python import load_function

EXAMPLE = example()
CASES = golden.read_cases(EXAMPLE / "evals" / "golden" / f"{AGENT}.jsonl")
MESSAGES = read_messages(EXAMPLE / "traffic" / "messages.jsonl")
ORDERS: dict[str, dict[str, Any]] = json.loads((EXAMPLE / "data" / "orders.json").read_text())


@pytest.fixture(scope="module")
def decide() -> Callable[..., Any]:
    """The refund policy, as the agent's code has it."""
    return load_function("tools/refunds.py:decide", EXAMPLE)


def test_the_golden_set_is_large_enough_and_says_what_kinds_of_case_it_has() -> None:
    assert len(CASES) >= 60
    assert golden.warnings(CASES) == []
    assert all(case.tags and case.cluster for case in CASES)
    kinds = Counter(tag for case in CASES for tag in case.tags)
    assert {"damaged", "late", "changed_mind", "missing_number", "multi_item", "polite", "angry"} <= set(kinds)


def test_no_case_is_there_twice() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert len({case.input for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_a_case_expects_is_what_the_policy_makes_of_its_facts(case: Case, decide: Callable[..., Any]) -> None:
    expected = case.expected_output
    order = ORDERS.get(expected["order"])
    assert decide(expected["order"], expected["item"], order) == expected["decision"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_facts_of_a_case_stand_in_its_message(case: Case) -> None:
    assert case.expected_output["item"] in case.input.lower()
    number = case.expected_output["order"]
    assert number in case.input or number == "none"


def test_live_messages_are_many_long_and_not_those_of_the_golden_set() -> None:
    assert len(MESSAGES) >= 80
    assert len({message.id for message in MESSAGES}) == len(MESSAGES)
    texts = {message.message for message in MESSAGES}
    assert len(texts) == len(MESSAGES)
    assert texts.isdisjoint(case.input for case in CASES)
    longest_case = max(len(case.input.split()) for case in CASES)
    long = [message for message in MESSAGES if len(message.message.split()) > 2 * longest_case]
    assert len(long) > len(MESSAGES) / 2


def test_what_a_person_reads_in_a_live_message_is_what_the_policy_makes_of_it(decide: Callable[..., Any]) -> None:
    for message in MESSAGES:
        expected = message.expected
        assert expected is not None
        order = ORDERS.get(expected["order"])
        assert expected["item"] in message.message.lower(), message.id
        assert decide(expected["order"], expected["item"], order) == expected["decision"], message.id


def test_all_versions_lock_without_a_warning_to_four_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(".lockgate", "__pycache__"))
    app = open_app(project)

    result = app.versions.lock()

    digests = {app.versions.find(f"{AGENT}@{number}") for number in (1, 2, 3, 4)}
    assert len(digests) == 4
    assert result.warnings == []


def test_the_rubric_decides_and_part_of_it_scores_live_runs() -> None:
    rubric = parse_rubric({"rubric": f"evals/rubrics/{AGENT}.yaml"}, EXAMPLE)

    check_decides(rubric)
    assert {"item", "order", "decision", "cost_usd"} <= {metric.name for metric in rubric.metrics}
    assert any(metric.unit == "score" for metric in live_metrics(rubric))
