"""The evals block becomes metrics, or one error that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.evals.model import Case, Metric, Rubric
from lockgate.evals.rubric import (
    MAX_ERROR_RATE,
    check_decides,
    needs_judge,
    parse_rubric,
    parse_thresholds,
    with_field_metrics,
    with_thresholds,
)
from lockgate.evals.scorers.making import live_metrics


def rubric(root: Path = Path(), **evals: Any) -> Rubric:
    return parse_rubric(evals, root)


def metric(name: str, found: Rubric) -> Metric:
    wanted = found.metric(name)
    assert wanted is not None
    return wanted


def test_a_number_bounds_a_metric_in_its_own_direction() -> None:
    found = rubric(thresholds={"exact_match": 0.8, "cost_usd": 0.05, "latency_seconds": {"max": 2}})
    assert (metric("exact_match", found).minimum, metric("exact_match", found).maximum) == (0.8, None)
    assert (metric("cost_usd", found).minimum, metric("cost_usd", found).maximum) == (None, 0.05)
    assert metric("latency_seconds", found).maximum == 2


def test_failed_trials_are_always_gated() -> None:
    assert metric("error_rate", rubric(thresholds={"exact_match": 0.8})).maximum == MAX_ERROR_RATE
    assert metric("error_rate", rubric(thresholds={"error_rate": 0.2})).maximum == 0.2


def test_a_field_is_a_metric_of_its_own() -> None:
    found = rubric(thresholds={"field_match": {"fields": ["item", "order"], "margin": 0.1}, "field_match.why": 0.7})
    assert [one.name for one in found.metrics][:4] == [
        "field_match",
        "field_match.item",
        "field_match.order",
        "field_match.why",
    ]
    assert metric("field_match.item", found).blocking is False
    assert metric("field_match.why", found).blocking is True
    assert metric("field_match.why", found).options == {"fields": ["why"]}


def test_a_match_over_all_expected_fields_names_them_from_the_golden_set() -> None:
    found = rubric(thresholds={"field_match": 0.8, "field_match.item": 0.9})
    cases = [Case(id="a", input="x", expected_output={"item": 1, "order": 2}), Case(id="b", input="x")]
    names = [one.name for one in with_field_metrics(found, cases).metrics]
    assert names == ["field_match", "field_match.item", "error_rate", "field_match.order"]


def test_a_metric_may_have_any_name_when_it_says_its_scorer() -> None:
    found = rubric(thresholds={"polite": {"metric": "regex", "pattern": "thank", "min": 0.5, "blocking": False}})
    assert metric("polite", found).scorer == "regex"
    assert metric("polite", found).blocking is False


def test_names_of_other_tools_are_known() -> None:
    found = rubric(thresholds={"answer_relevancy": 0.8, "exact": 0.5, "decision_match": 0.9})
    assert [one.scorer for one in found.metrics][:3] == ["answer_relevance", "exact_match", "field_match"]
    assert needs_judge(found) == ["answer_relevancy"]


def test_a_rubric_file_adds_its_dimensions_and_the_agent_file_stands_over_it(tmp_path: Path) -> None:
    text = "dimensions: {exact_match: 0.5, cost_usd: {max: 1}}\nnever: [must_not]\nslices: {vip: 3}\n"
    (tmp_path / "rubric.yaml").write_text(text)
    found = rubric(tmp_path, rubric="rubric.yaml", thresholds={"exact_match": 0.9})
    assert metric("exact_match", found).minimum == 0.9
    assert metric("cost_usd", found).maximum == 1
    assert metric("must_not", found).never is True
    assert found.slices == {"vip": 3}
    (tmp_path / "rubric.yaml").write_text(text + "# changed\n")
    assert rubric(tmp_path, rubric="rubric.yaml", thresholds={"exact_match": 0.9}).digest != found.digest


def test_a_schema_is_named_by_its_path_and_its_content_is_part_of_the_digest(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object"}')
    first = rubric(tmp_path, thresholds={"schema_valid": {"schema": "s.json", "min": 1}})
    assert metric("schema_valid", first).options["schema"] == {"type": "object"}
    (tmp_path / "s.json").write_text('{"type": "array"}')
    assert rubric(tmp_path, thresholds={"schema_valid": {"schema": "s.json", "min": 1}}).digest != first.digest


def test_a_changed_python_scorer_is_another_rubric(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def score(sample):\n    return 1\n")
    evals = {"polite": {"python": "own.py:score", "min": 0.9}}
    first = rubric(tmp_path, thresholds=evals)
    file.write_text("def score(sample):\n    return 0\n")
    assert rubric(tmp_path, thresholds=evals).digest != first.digest


def test_how_fast_or_how_often_trials_run_is_not_what_a_good_answer_is() -> None:
    thresholds = {"exact_match": 0.8}
    assert (
        rubric(thresholds=thresholds, concurrency=1, trials=1).digest == rubric(thresholds=thresholds, trials=5).digest
    )
    assert rubric(thresholds=thresholds).digest != rubric(thresholds={"exact_match": 0.81}).digest


@pytest.mark.parametrize(
    ("thresholds", "said", "remedy"),
    [
        ({"exact_mach": 0.8}, "no metric 'exact_mach'", "did you mean 'exact_match'?"),
        ({"zzz": 0.8}, "no metric 'zzz'", "known: "),
        ({"exact_match": 80}, "exact_match.threshold is 80, not in 0..1", "fractions"),
        ({"exact_match": "high"}, "exact_match is 'high'", "write exact_match: 0.8"),
        ({"exact_match": {"min": True}}, "exact_match.min is True", "finite"),
        ({"exact_match": {"minimum": 0.8}}, "unknown option 'minimum'", "options of exact_match: ignore_case"),
        ({"regex": 0.5}, "needs 'pattern'", "write regex: {pattern: …}"),
        ({"regex": {"pattern": "("}}, "is not a regular expression", "correct"),
        ({"grounded_fields": {"fields": "item"}}, "fields is 'item'", "correct"),
        ({"exact_match.item": 0.5}, "only field_match takes a .FIELD", "write 'exact_match'"),
        ({"schema_valid": {"schema": {"type": "nope"}}}, "not a JSON Schema", "correct"),
        ({"schema_valid": {"schema": "none.json"}}, "none.json: cannot be read", "path"),
    ],
)
def test_what_makes_no_sense_is_named(thresholds: dict[str, Any], said: str, remedy: str) -> None:
    with pytest.raises(InputError) as wrong:
        rubric(thresholds=thresholds)
    assert said in wrong.value.message
    assert remedy in (wrong.value.remedy or "")


def test_an_unknown_key_of_a_rubric_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "rubric.yaml").write_text("dimensions: {exact_match: 0.5}\nnevr: [must_not]\n")
    with pytest.raises(InputError, match=r"rubric\.yaml:2: unknown key 'nevr'"):
        rubric(tmp_path, rubric="rubric.yaml")


def test_a_rubric_that_decides_nothing_is_refused() -> None:
    for evals in ({}, {"thresholds": {"exact_match": {"min": 0.5, "blocking": False}}}):
        with pytest.raises(InputError, match="no blocking metric"):
            check_decides(parse_rubric(evals, Path()))
    check_decides(rubric(thresholds={"exact_match": {"margin": 0.1}}))


def test_thresholds_of_the_command_line_stand_over_the_file_and_add_metrics() -> None:
    found = rubric(thresholds={"exact_match": {"min": 0.5, "blocking": False, "margin": 0.1}, "answer_relevancy": 0.5})
    given = parse_thresholds("exact_match=0.9, cost_usd=0.05,answer_relevance=0.7")
    changed = with_thresholds(found, given, Path())
    assert (metric("exact_match", changed).minimum, metric("exact_match", changed).blocking) == (0.9, True)
    assert metric("exact_match", changed).margin == 0.1
    assert metric("cost_usd", changed).maximum == 0.05
    assert metric("answer_relevancy", changed).minimum == 0.7
    assert changed.metric("answer_relevance") is None


@pytest.mark.parametrize("text", ["exact_match", "exact_match=", "exact_match=nan", "=0.5x"])
def test_a_malformed_threshold_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not NAME=NUMBER"):
        parse_thresholds(text)


def test_live_metrics_need_neither_a_case_nor_a_model() -> None:
    found = rubric(
        thresholds={"grounded_fields": {"fields": ["a"], "min": 0.5}, "exact_match": 0.5, "faithfulness": 0.5}
    )
    assert [one.name for one in live_metrics(found)] == ["grounded_fields", "error_rate"]


def test_a_judge_has_a_prompt_of_its_own_when_it_names_one(tmp_path: Path) -> None:
    (tmp_path / "judge.md").write_text("Be harsh.")
    judge = {"provider": "ollama", "name": "llama3.1:70b", "prompt": "judge.md"}
    found = rubric(tmp_path, thresholds={"faithfulness": 0.5}, judge=judge).judge
    assert found is not None
    assert (found.model, found.prompt) == ("ollama:llama3.1:70b", "Be harsh.")


def test_the_block_as_the_agent_file_gives_it_is_accepted() -> None:
    from lockgate.versions.spec import EvalSpec

    given = json.loads('{"thresholds": {"exact_match": 0.8, "cost_usd": {"max": 0.05}}, "trials": 3, "timeout": "2m"}')
    block = EvalSpec.model_validate(given).model_dump()
    found = parse_rubric(block, Path())
    assert metric("exact_match", found).minimum == 0.8
    assert (found.trials, found.timeout) == (3, 120.0)
