"""The schemas that are published, held against what is really written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.evals.model import Change, Interval, Look, MetricCard, MutantCard, Scorecard, SelfCheck, Slice, TagCost

SCHEMA = Path(__file__).parents[2] / "docs" / "scorecard.schema.json"


def printed() -> Any:
    shown = CliRunner().invoke(app, ["schema", "scorecard"])
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def card() -> Scorecard:
    metric = MetricCard(
        name="exact_match",
        scorer="exact_match",
        unit="score",
        direction="higher",
        blocking=True,
        verdict="fail",
        reason="0.5 < 0.8",
        mean=0.5,
        interval=Interval(0.4, 0.6),
    )
    check = SelfCheck(
        gates=100,
        false_blocks=2,
        false_block_rate=0.02,
        false_block_interval=Interval(0.0, 0.07),
        level=0.05,
        inconclusive=1,
        mutants=[MutantCard(name="empty", what="answers nothing", verdict="fail", reason="")],
    )
    return Scorecard(
        id="eval_1",
        agent="triage",
        label="triage@2 (abc)",
        behaviour_digest="sha256:b",
        effective_digest="sha256:e",
        environment="prod",
        dataset="g.jsonl",
        dataset_digest="sha256:d",
        rubric_digest="sha256:r",
        cases=1,
        trials=1,
        verdict="fail",
        reasons=["exact_match: 0.5 < 0.8"],
        metrics=[metric],
        slices=[Slice(kind="tag", name="t", metric="exact_match", cases=1, mean=0.5)],
        broken=[Change(case_id="a", metric="exact_match", before=1.0, after=0.0)],
        looks=[Look(what="1 trial", trials=1, calls=1, level=0.05, verdict="fail")],
        costs=[TagCost(tag="t", runs=1, mean_usd=0.1, highest_usd=0.1)],
        self_check=check,
    )


def test_the_published_schema_is_the_one_that_is_printed() -> None:
    assert json.loads(SCHEMA.read_text()) == printed()


def test_a_scorecard_is_valid_under_its_schema() -> None:
    jsonschema_rs.validator_for(printed()).validate(json.loads(msgspec.json.encode(card())))


@pytest.mark.parametrize(("field", "value"), [("verdict", "green"), ("metrics", {}), ("cases", "many"), ("id", None)])
def test_a_scorecard_that_says_something_else_is_not(field: str, value: Any) -> None:
    given = json.loads(msgspec.json.encode(card()))
    given[field] = value
    assert not jsonschema_rs.validator_for(printed()).is_valid(given)
