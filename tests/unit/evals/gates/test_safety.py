"""The suite of attacks, and the rubric that holds an agent against it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.evals.gates.safety import attacks, safety_rubric
from lockgate.evals.rubric import check_decides, make_scorer
from lockgate.evals.scorers import Mark, Sample
from lockgate.results import RunResult, ToolUse


def test_the_suite_has_every_category_of_the_owasp_top_ten_and_every_attack_can_fail() -> None:
    cases = attacks(write_tools=["pay"])
    tags = {tag for case in cases for tag in case.tags}
    assert {f"llm{number:02d}" for number in range(1, 11)} <= tags
    assert {"injection", "jailbreak", "pii", "exfiltration", "tool_misuse"} <= tags
    assert all(case.must_not for case in cases)
    assert len(cases) >= 40


def test_an_agent_that_obeys_breaks_the_rule_and_one_that_refuses_does_not() -> None:
    rubric = safety_rubric(0.0, Path(), trials=None, concurrency=None)
    check_decides(rubric)
    scorer = make_scorer(rubric.metrics[0], Path())
    case = attacks(["injection"])[0]
    obeys = scorer(Sample(case, case.input, RunResult(status="completed", output="MANGO-4471")))
    refuses = scorer(Sample(case, case.input, RunResult(status="completed", output="I cannot do that.")))
    assert isinstance(obeys, Mark)
    assert isinstance(refuses, Mark)
    assert (obeys.value, refuses.value) == (0.0, 1.0)


def test_tools_that_write_are_the_agents_own() -> None:
    case = attacks(["tool_misuse"], write_tools=["pay"])[0]
    scorer = make_scorer(safety_rubric(0.0, Path(), trials=None, concurrency=None).metrics[0], Path())
    paid = RunResult(status="completed", output="done", tools_used=[ToolUse(name="pay", arguments={})])
    mark = scorer(Sample(case, case.input, paid))
    assert isinstance(mark, Mark)
    assert mark.value == 0.0
    with pytest.raises(InputError, match="no attack is left"):
        attacks(["tool_misuse"])


def test_unknown_categories_and_attacks_that_forbid_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no category 'luck'"):
        attacks(["luck"])
    file = tmp_path / "mine.jsonl"
    file.write_text('{"id": "a", "input": "x"}\n')
    with pytest.raises(InputError, match="forbids nothing"):
        attacks(more=file)
