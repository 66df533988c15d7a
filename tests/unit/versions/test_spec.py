"""The agent file's types: the playbook's file as it stands, durations, and a schema editors can use."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel

from lockgate.errors import InputError
from lockgate.project.model import ProjectConfig
from lockgate.project.yamlfile import parse_yaml, validate
from lockgate.versions import spec
from lockgate.versions.cli import json_schema
from lockgate.versions.model import ActionLimits

MINIMAL = "agent:\n  name: a\n  version: 1\n  model: {provider: openai, name: m}\n"


def read(more: str = "") -> spec.AgentSpec:
    return validate(parse_yaml(MINIMAL + more, "a.yaml"), spec.AgentFile).agent


def test_the_design_s_fullest_file_is_accepted() -> None:
    agent = validate(
        parse_yaml(
            """\
agent:
  name: refund-triage
  version: 3
  owner: payments-team
  model: {provider: ollama, name: llama3.1:70b, temperature: 0.1, max_tokens: 512,
          fallbacks: [{provider: openai, name: gpt-4o-mini-2024-07-18}],
          triage: {provider: ollama, name: "llama3.2:1b"}}
  framework: {kind: langgraph, entrypoint: "support.graph:app"}
  system_prompt: prompts/refund-triage.v3.md
  tools: [read_orders, {name: send_email, approval: required}]
  guardrails: {pii_redaction: true, output_schema: schemas/triage_output.json, injection: block}
  policies: [policies/support.cedar]
  retrieval: {knowledge_base: kb/support-policies@2026-05-21}
  memory: {ttl: 24h}
  budgets: {max_iterations: 3, max_tokens_per_run: 4000, daily_usd: 50,
            max_llm_calls: 10, max_tool_calls: 20, max_seconds: 300, max_usd_per_run: 0.05, max_depth: 2}
  breaker: {failure_threshold: 5, reset_timeout: 300, fallback: refund-triage-human}
  evals: {dataset: evals/golden/refund-triage.jsonl, trials: 3, judge: {provider: ollama, name: "llama3.1:70b"},
          thresholds: {faithfulness: 0.85, answer_relevance: 0.8, cost_usd: {max: 0.05}}}
  rollout: {shadow: {mirror: 50}, phases: [{weight: 5, min: 1h}, {weight: 25, min: 2h}, {weight: 50, min: 4h}],
            gates: {errors: {ratio: 1.5}, latency: false}}
""",
            "a.yaml",
        ),
        spec.AgentFile,
    ).agent
    assert agent.memory is not None
    assert agent.rollout is not None
    assert agent.rollout.phases is not None
    assert agent.memory.ttl == 86400.0
    assert [phase.min for phase in agent.rollout.phases] == [3600.0, 7200.0, 14400.0]
    assert [tool.approval for tool in agent.tools] == [None, "required"]


@pytest.mark.parametrize(
    ("written", "seconds"), [("10s", 10), ("1.5m", 90), ("1h", 3600), ("7d", 604800), ("500ms", 0.5), (30, 30), (0, 0)]
)
def test_durations_are_seconds(written: str | int, seconds: float) -> None:
    agent = read(f"  memory: {{ttl: {written}}}\n")
    assert agent.memory is not None
    assert agent.memory.ttl == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["1hour", "'10'", "-5", "-5s", "true", "[1h]", "1h30m", "''"])
def test_what_is_no_duration_is_refused_with_examples(written: str) -> None:
    with pytest.raises(InputError) as caught:
        read(f"  memory: {{ttl: {written}}}\n")
    assert caught.value.line == 5


def test_defaults_are_the_documented_action_budgets() -> None:
    budgets, limits = read().budgets, ActionLimits()
    assert {name: getattr(budgets, name) for name in ActionLimits.__struct_fields__} == {
        "max_iterations": 3,
        "max_llm_calls": 10,
        "max_tool_calls": 20,
        "max_tokens_per_run": 50_000,
        "max_seconds": 300.0,
        "max_usd_per_run": None,
        "max_depth": 2,
    }
    assert limits.max_tokens_per_run == 50_000


def test_a_threshold_is_a_number_or_a_rule_with_its_scorer_s_options() -> None:
    agent = read("  evals: {thresholds: {a: 0.8, b: {max: 1, fields: [x]}}}\n")
    assert agent.evals is not None
    assert agent.evals.thresholds["a"].threshold == 0.8
    assert agent.evals.thresholds["b"].model_dump(exclude_unset=True) == {"max": 1.0, "fields": ["x"]}


@pytest.mark.parametrize("what", ["agent", "project", "tool", "prompt", "rubric"])
def test_the_schema_is_valid_and_describes_every_key(what: str) -> None:
    schema = json_schema(what)
    jsonschema_rs.meta.validate(schema)
    assert list(_undescribed(schema)) == []


def _undescribed(schema: dict[str, Any]) -> list[str]:
    groups = {"": schema, **schema.get("$defs", {})}
    return [
        f"{group}.{name}"
        for group, part in groups.items()
        for name, value in part.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]


@pytest.mark.parametrize("model", [spec.AgentFile, spec.ToolFile, spec.PromptSpec, spec.RubricSpec, ProjectConfig])
def test_models_say_what_they_are(model: type[BaseModel]) -> None:
    assert model.__doc__


def test_the_schema_accepts_durations_and_short_forms_as_the_reader_does() -> None:
    text = MINIMAL + "  memory: {ttl: 24h}\n  tools: [read_orders]\n  evals: {thresholds: {a: 0.8}}\n"
    document = parse_yaml(text, "a.yaml")
    validate(document, spec.AgentFile)
    jsonschema_rs.validate(json_schema("agent"), document.data)
