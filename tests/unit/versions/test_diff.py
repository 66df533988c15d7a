"""What a reviewer is told about two versions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.versions.diff import BehaviourDiff, Snapshot, compare, markdown, one_line
from lockgate.versions.model import (
    ActionLimits,
    AgentSettings,
    AgentVersion,
    Guardrails,
    ModelRef,
    ToolContract,
)
from lockgate.versions.schema_break import schema_break

REFUND = ToolContract(
    name="refund",
    effect="write",
    approval=True,
    input={"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
)
RAILS = Guardrails(pii_redaction=True, injection="block", output_schema={"type": "object"})


def rails(**fields: Any) -> Guardrails:
    return msgspec.structs.replace(RAILS, **fields)


BASE = AgentVersion(
    agent="a",
    file_version=1,
    behaviour_digest="sha256:1",
    model=ModelRef(provider="p", name="m", temperature=0.1),
    system_prompt="Be exact.\nAnswer in JSON.\n",
    tools=(REFUND,),
    guardrails=RAILS,
    policies={"a.cedar": "permit;"},
)
SETTINGS = AgentSettings(
    owner="me", daily_usd=50.0, evals={"thresholds": {"tone": 0.8, "cost_usd": {"max": 0.05}}, "trials": 3}
)


def diff(settings: AgentSettings = SETTINGS, code: dict[str, str] | None = None, **fields: Any) -> BehaviourDiff:
    before = Snapshot(label="a@1", version=BASE, settings=SETTINGS, code={"t.py": "x = 1\n"})
    digest = "sha256:2" if fields or code else "sha256:1"
    version = msgspec.structs.replace(BASE, **{"behaviour_digest": digest, **fields})
    return compare(before, Snapshot(label="a@2", version=version, settings=settings, code=code or before.code))


def marks(found: BehaviourDiff) -> list[tuple[str, str]]:
    return [(f"{change.part} {change.what}", change.mark) for change in found.changes]


def test_no_change_is_no_difference() -> None:
    assert diff().changes == []
    assert "No difference" in markdown(diff())


def test_a_prompt_is_shown_by_its_hunks() -> None:
    (change,) = diff(system_prompt="Be exact.\nAnswer in words.\n").changes
    assert "-Answer in JSON." in change.hunks
    assert "+Answer in words." in change.hunks


def test_only_the_end_of_a_line_is_a_change_too() -> None:
    (change,) = diff(system_prompt=BASE.system_prompt.rstrip("\n")).changes
    assert change.hunks


def test_model_and_parameters_are_shown_by_value() -> None:
    found = diff(
        model=ModelRef(provider="p", name="m2", temperature=None), fallbacks=(ModelRef(provider="q", name="n"),)
    )
    assert "model name: m → m2" in [one_line(change) for change in found.changes]
    assert "model temperature: 0.1 → –" in [one_line(change) for change in found.changes]
    assert "model fallbacks[0].name: – → n" in [one_line(change) for change in found.changes]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tools": (msgspec.structs.replace(REFUND, approval=False),)}, [("tools refund.approval", "loosened")]),
        ({"tools": (msgspec.structs.replace(REFUND, effect="read"),)}, [("tools refund.effect", "tightened")]),
        ({"tools": (msgspec.structs.replace(REFUND, scopes=("all",)),)}, [("tools refund.scopes", "loosened")]),
        ({"tools": ()}, [("tools refund", "breaking")]),
        ({"tools": (REFUND, ToolContract(name="send"))}, [("tools send", "loosened")]),
        ({"tools": (REFUND, ToolContract(name="send", effect="read"))}, [("tools send", "")]),
        ({"guardrails": rails(pii_redaction=False)}, [("guardrails pii_redaction", "loosened")]),
        ({"guardrails": rails(injection="flag")}, [("guardrails injection", "loosened")]),
        ({"guardrails": rails(output_schema=None)}, [("guardrails output_schema", "loosened")]),
        ({"policies": {}}, [("policy a.cedar", "loosened")]),
        ({"limits": ActionLimits(max_llm_calls=11)}, [("limits max_llm_calls", "loosened")]),
        ({"limits": ActionLimits(max_usd_per_run=1.0)}, [("limits max_usd_per_run", "tightened")]),
        ({"memory": {"ttl": 60.0}}, [("memory ttl", "")]),
    ],
)  # fmt: skip
def test_what_allows_more_is_called_loosened(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    found = diff(**fields)
    assert marks(found) == expected
    assert bool(found.loosened) == (expected[0][1] == "loosened")
    assert ("**Loosened:**" in markdown(found)) == bool(found.loosened)


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ({"tone": 0.7, "cost_usd": {"max": 0.05}}, [("thresholds tone.threshold", "loosened")]),
        ({"tone": 0.9, "cost_usd": {"max": 0.05}}, [("thresholds tone.threshold", "tightened")]),
        ({"tone": 0.8}, [("thresholds cost_usd", "loosened")]),
        ({"tone": 0.8, "cost_usd": {"max": 0.06}}, [("thresholds cost_usd.max", "loosened")]),
        (
            {"tone": {"threshold": 0.8, "blocking": False}, "cost_usd": {"max": 0.05}},
            [("thresholds tone.blocking", "loosened")],
        ),
        ({"tone": 0.8, "cost_usd": {"max": 0.05}, "new": 0.5}, [("thresholds new", "tightened")]),
    ],
)
def test_a_loosened_threshold_is_called_out_though_the_behaviour_is_the_same(
    thresholds: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    settings = msgspec.structs.replace(SETTINGS, evals={**SETTINGS.evals, "thresholds": thresholds})
    found = diff(settings)
    assert (found.same_behaviour, marks(found)) == (True, expected)


def test_a_threshold_that_moves_from_the_rubric_to_the_file_is_no_change() -> None:
    evals = {"rubric": {"dimensions": SETTINGS.evals["thresholds"]}, "thresholds": {}, "trials": 3}
    assert diff(msgspec.structs.replace(SETTINGS, evals=evals)).changes == []


def test_budgets_owner_and_plan_stand_beside_the_behaviour() -> None:
    found = diff(AgentSettings(owner="you", daily_usd=60.0, evals=SETTINGS.evals, rollout={"warm": 60.0}))
    assert marks(found) == [("budgets daily_usd", "loosened"), ("owner owner", ""), ("rollout warm", "")]


def test_code_is_shown_by_file() -> None:
    found = diff(code={"t.py": "x = 2\n", "u.py": "y = 1\n"})
    assert marks(found) == [("code t.py", ""), ("code u.py", "")]


OBJECT = {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("new", "broken"),
    [
        (OBJECT, None),
        ({**OBJECT, "required": []}, None),
        ({**OBJECT, "required": ["a", "n"]}, "n is required now"),
        ({**OBJECT, "properties": {**OBJECT["properties"], "b": {}}}, None),
        ({**OBJECT, "properties": {"a": {}}, "additionalProperties": False}, "n is unknown now"),
        ({**OBJECT, "properties": {"a": {"type": "integer"}, "n": {}}}, "a must be integer"),
        ({**OBJECT, "properties": {"a": {"type": "string"}, "n": {"type": "number"}}}, None),
        ({**OBJECT, "properties": {"a": {"type": ["string", "null"]}, "n": {}}}, None),
        ({**OBJECT, "properties": {"a": {"enum": ["x"]}, "n": {}}}, "a has fewer values"),
        ({**OBJECT, "properties": {"a": {"maxLength": 3}, "n": {}}}, "a has a tighter maxLength"),
        ({**OBJECT, "properties": {"a": {"pattern": "x"}, "n": {}}}, "a has another pattern"),
        ({"type": "array"}, "the value must be array"),
    ],
)  # fmt: skip
def test_a_schema_change_is_breaking_when_what_fitted_may_not_fit(new: dict[str, Any], broken: str | None) -> None:
    assert schema_break(OBJECT, new) == broken


def test_inputs_break_one_way_and_outputs_the_other() -> None:
    wider = {"type": "object", "properties": {"id": {"type": "string"}}, "required": []}
    (given,) = diff(tools=(msgspec.structs.replace(REFUND, input=wider),)).changes
    assert given.mark == "compatible"
    was = msgspec.structs.replace(BASE, tools=(msgspec.structs.replace(REFUND, output=REFUND.input),))
    now = msgspec.structs.replace(BASE, tools=(msgspec.structs.replace(REFUND, output=wider),))
    sides = [Snapshot(label="x", version=version, settings=SETTINGS, code={}) for version in (was, now)]
    assert [change.mark for change in compare(*sides).changes] == ["breaking"]


def test_markdown_holds_its_fences_and_tables_whatever_the_text() -> None:
    shown = markdown(diff(system_prompt="a | b\n```\ncode\n```\n", memory={"x|y": "p|q"}))
    assert "````diff" in shown
    assert "x\\|y" in shown
