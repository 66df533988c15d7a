"""`lockgate triage` and `lockgate feedback`, from the shell's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from lockgate.bootstrap import open_app
from lockgate.cli import app
from lockgate.clock import system
from lockgate.evals.golden import read_cases
from lockgate.storage import schema
from lockgate.storage.engine import open_database

runner = CliRunner()

AGENT = """\
agent:
  name: echo
  version: 1
  owner: team
  model: {provider: local, name: qwen2.5-coder-0.5b-instruct}
  system_prompt: prompts/echo.md
  evals: {dataset: evals/golden/echo.jsonl}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("agents", "prompts", "evals/golden"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lockgate.yaml").write_text("project: p\n")
    (tmp_path / "agents/echo.v1.yaml").write_text(AGENT)
    (tmp_path / "prompts/echo.md").write_text("Echo.\n")
    (tmp_path / "evals/golden/echo.jsonl").write_text('{"id": "c1", "input": "x", "expected_output": "x"}\n')
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def failed_run(project: Path) -> str:
    control = open_database(project / ".lockgate" / "control.db", "control")
    now = system()
    values: dict[str, Any] = {"agent": "echo", "environment": "prod", "arm": "stable", "assignment_key": "k"}
    values |= {"behaviour_digest": "sha256:b", "effective_digest": "sha256:e", "tenant": "t", "trace_id": "0" * 32}
    values |= {"status": "failed", "error_type": "output_invalid", "error": "not [JSON]", "input": "refund [me]"}
    with control.write() as connection:
        connection.execute(insert(schema.runs).values(id="run_1", started_at=now - 1, ended_at=now, **values))
    control.close()
    return "run_1"


def call(*arguments: str, exit_code: int = 0) -> str:
    shown = runner.invoke(app, list(arguments))
    assert shown.exit_code == exit_code, shown.output
    return shown.output


def first_candidate() -> str:
    return str(msgspec.json.decode(call("triage", "list", "--json"))[0]["id"])


@pytest.mark.usefixtures("failed_run")
def test_a_failure_is_listed_shown_and_promoted_into_the_agents_golden_set(project: Path) -> None:
    listed = call("triage", "list")
    assert "output_invalid: not [JSON]" in listed
    assert "refund [me]" in listed  # what tells one row from another
    candidate = first_candidate()
    assert "refund [me]" in call("triage", "show", candidate)
    open_app().versions.lock(None)
    done = call("triage", "promote", candidate, "--expect", '{"decision": "deny"}', "--tag", "late", "--as", "ann")
    assert "added to evals/golden/echo.jsonl" in done
    _, case = read_cases(project / "evals/golden/echo.jsonl")
    assert (case.input, case.expected_output, case.source_run) == ("refund [me]", {"decision": "deny"}, "run_1")
    assert case.tags == ["regression", "error", "late"]
    assert "nothing waits" in call("triage", "list")
    assert "by ann" in call("triage", "promote", candidate, "--expect", "no", exit_code=1)


@pytest.mark.usefixtures("failed_run")
def test_what_is_expected_can_come_from_a_file(project: Path) -> None:
    (project / "answer.json").write_text('{"decision": "escalate"}')
    other = ("--dataset", "other.jsonl", "--expect-file", "answer.json", "--expect-tool", "read_orders", "--json")
    case = msgspec.json.decode(call("triage", "promote", first_candidate(), *other))["case"]
    assert (case["expected_output"], case["expected_tools"]) == ({"decision": "escalate"}, ["read_orders"])
    assert [known.id for known in read_cases(project / "other.jsonl")] == [case["id"]]


@pytest.mark.usefixtures("failed_run")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "needs something to be expected"),
        (("--expect", "{nope"), "not valid JSON"),
        (("--expect", "a", "--expect-file", "b"), "exclude each other"),
        (("--expect-file", "absent.json"), "absent.json"),
        (("--accept-output",), "no output to accept"),
    ],
)
def test_a_wrong_expectation_changes_nothing(project: Path, arguments: tuple[str, ...], says: str) -> None:
    candidate = first_candidate()
    dataset = ("--dataset", "evals/golden/echo.jsonl")
    assert says in call("triage", "promote", candidate, *dataset, *arguments, exit_code=2)
    assert len(read_cases(project / "evals/golden/echo.jsonl")) == 1
    assert first_candidate() == candidate


@pytest.mark.usefixtures("failed_run")
def test_a_candidate_is_rejected_with_a_reason() -> None:
    assert "is rejected" in call("triage", "reject", first_candidate(), "--why", "spam")
    assert "rejected" in call("triage", "list", "--status", "rejected")


@pytest.mark.usefixtures("failed_run")
def test_a_bad_rating_and_a_flag_add_reasons_to_the_candidate() -> None:
    call("feedback", "add", "run_1", "--rating", "down", "--comment", "useless")
    call("feedback", "add", "run_1", "--rating", "up")
    call("triage", "flag", "run_1", "--note", "look")
    (candidate,) = msgspec.json.decode(call("triage", "list", "--json"))
    assert candidate["reasons"] == ["error", "feedback", "flag"]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "arguments",
    [
        ("triage", "show", "candidate_0"),
        ("triage", "reject", "candidate_0"),
        ("triage", "flag", "run_0"),
        ("feedback", "add", "run_0", "--rating", "down"),
        ("feedback", "add", "run_0", "--rating", "sideways"),
    ],
)
def test_what_does_not_exist_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    call(*arguments, exit_code=2)
