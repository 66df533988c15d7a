"""Prod opens for a verdict by the agent's own rubric and golden set alone; scorecards go where the version goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.acceptance.commands import call
from tests.conftest import write_files

from lockgate.bootstrap import open_app
from lockgate.storage.schema import audit
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest
from lockgate.versions import layout

AGENT = """\
agent:
  name: echo
  version: {version}
  owner: support
  model: {{provider: fake, name: fake-model-2026-01-01, temperature: 0}}
  system_prompt: prompts/v{version}.md
  evals:
    dataset: evals/golden/echo.jsonl
    concurrency: 8
    thresholds: {{exact_match: {threshold}}}
"""


def cases(count: int) -> str:
    return "".join(
        json.dumps({"id": f"c{n}", "input": f"w{n}", "expected_output": f"w{n}"}) + "\n" for n in range(count)
    )


def echo(request: ModelRequest) -> str:
    """Right for all but every fourth word."""
    word = request.last_user
    return "?" if int(word[1:]) % 4 == 0 else word


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    with FakeModelServer(echo) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeModelServer) -> Path:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    files = {
        "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
        "prices: prices.yaml\n",
        "prices.yaml": "fake: {fake-model-2026-01-01: {input: 1.0, output: 2.0}}\n",
        "evals/golden/echo.jsonl": cases(60),
        "evals/golden/easy.jsonl": cases(60).replace('"w0"', '"w1"'),
        "agents/echo.v1.yaml": AGENT.format(version=1, threshold=0.9),
        "agents/echo.v2.yaml": AGENT.format(version=2, threshold=0.5),
        "prompts/v1.md": "Repeat.\n",
        "prompts/v2.md": "Repeat it.\n",
    }
    write_files(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    call("lock")
    return tmp_path


def test_a_loosened_threshold_on_the_command_line_does_not_open_prod(project: Path) -> None:
    call("eval", "--agent", "echo@1", "--threshold", "exact_match=0.5")
    shown = call("deploy", "echo@1", "--env", "prod", exit_code=1)
    assert "measured by what --threshold or --judge gave" in shown
    call("attest", "verify", "echo@1", "--env", "prod", exit_code=1)
    call("deploy", "echo@1", "--env", "prod", "--override", "the demo is today")
    with open_app().control.read() as connection:
        details = connection.execute(select(audit.c.details).where(audit.c.action == "deploy")).scalar_one()
    assert details["override"] == "the demo is today"
    assert "measured by" in details["overridden"][0]


def test_another_golden_set_does_not_open_prod(project: Path) -> None:
    call("eval", "--agent", "echo@2", "--dataset", "evals/golden/easy.jsonl")
    assert "measured by what --dataset gave" in call("deploy", "echo@2", "--env", "prod", exit_code=1)


def test_the_agents_own_rubric_and_golden_set_open_prod(project: Path) -> None:
    call("eval", "--agent", "echo@2")
    call("deploy", "echo@2", "--env", "prod")


def test_naming_what_the_agent_file_says_anyway_is_no_override(project: Path) -> None:
    call("eval", "--agent", "echo@2", "--dataset", "evals/golden/echo.jsonl", "--trials", "2")
    call("deploy", "echo@2", "--env", "prod")


def test_a_later_experiment_neither_opens_nor_closes_prod(project: Path) -> None:
    call("eval", "--agent", "echo@2")
    call("eval", "--agent", "echo@2", "--threshold", "exact_match=0.99", exit_code=1)
    call("deploy", "echo@2", "--env", "prod")


def test_a_threshold_tightened_after_the_gate_asks_for_a_new_one(project: Path) -> None:
    call("eval", "--agent", "echo@2")
    path = project / "agents/echo.v2.yaml"
    path.write_text(path.read_text().replace("exact_match: 0.5", "exact_match: 0.6"))
    call("lock")
    assert "the agent's own is" in call("deploy", "echo@2", "--env", "prod", exit_code=1)
    call("eval", "--agent", "echo@2")
    call("deploy", "echo@2", "--env", "prod")


def test_a_golden_set_that_grew_asks_for_a_new_gate(project: Path) -> None:
    call("eval", "--agent", "echo@2")
    with (project / "evals/golden/echo.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "input": "w61", "expected_output": "w61"}) + "\n")
    assert "measured by the golden set" in call("deploy", "echo@2", "--env", "prod", exit_code=1)


def test_a_policy_may_take_a_verdict_by_any_rubric(project: Path) -> None:
    with (project / "lockgate.yaml").open("a") as file:
        file.write("environments: {prod: {policy: {require_own_rubric: false}}}\n")
    call("eval", "--agent", "echo@1", "--threshold", "exact_match=0.5")
    call("deploy", "echo@1", "--env", "prod")


def test_every_scorecard_is_attached_to_the_bundle_and_the_newest_ten_stay(project: Path) -> None:
    card = call("eval", "--agent", "echo@1", "--json", exit_code=1)
    opened = open_app()

    def attached() -> list[str]:
        found = []
        for _, manifest in layout.referrers(opened.blobs, card["behaviour_digest"], layout.SCORECARD):
            (layer,) = json.loads(manifest)["layers"]
            found.append(json.loads(opened.blobs.get(layer["digest"]))["id"])
        return found

    assert attached() == [card["id"]]
    for _ in range(10):
        last = call("eval", "--agent", "echo@1", "--json", exit_code=1)
    assert len(attached()) == 10
    assert attached()[-1] == last["id"]
    assert card["id"] not in attached()


def test_a_try_on_another_model_is_not_attached(project: Path) -> None:
    arguments = ("eval", "--agent", "echo@2", "--model-override", "fake:fake-model-2026-01-01", "--json")
    card = call(*arguments)
    assert layout.referrers(open_app().blobs, card["behaviour_digest"], layout.SCORECARD) == []


def test_the_scorecard_warns_of_a_model_that_is_about_to_go(project: Path) -> None:
    (project / "ends.yaml").write_text("models: {fake-model-2026-01-01: {retires: 2999-01-31, replacement: other}}\n")
    with (project / "lockgate.yaml").open("a") as file:
        file.write("deprecations: ends.yaml\n")
    card = call("eval", "--agent", "echo@2", "--json")
    assert "is retired on 2999-01-31" in card["warnings"][0]
    assert "move to other" in call("report", card["id"])
