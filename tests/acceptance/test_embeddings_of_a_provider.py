"""A metric by a provider's embeddings: what they cost is the evaluation's money, and a provider that fails is no
fault of the agent's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.commands import call
from tests.conftest import write_files

from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest, failing

AGENT = """\
agent:
  name: support
  version: 1
  owner: support
  model: {provider: fake, name: agent-2026-01-01, temperature: 0}
  system_prompt: prompts/v1.md
  evals:
    dataset: evals/golden/support.jsonl
    whole: true
    concurrency: 1
    thresholds: {embedding_similarity: {min: 0.5, model: "fake:embedder-2026-01-01"}}
"""


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    with FakeModelServer("Gladly") as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeModelServer) -> Path:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    cases = [{"id": f"c{n}", "input": f"question-{n}", "expected_output": "Gladly"} for n in range(10)]
    files = {
        "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
        "prices: prices.yaml\n",
        "prices.yaml": "fake:\n  agent-2026-01-01: {input: 0, output: 0}\n"
        "  embedder-2026-01-01: {input: 1000.0, output: 0}\n",  # a thousandth of a dollar a token
        "evals/golden/support.jsonl": "".join(json.dumps(case) + "\n" for case in cases),
        "prompts/v1.md": "You help.\n",
        "agents/support.v1.yaml": AGENT,
    }
    write_files(tmp_path, files)
    call("lock")
    return tmp_path


def embedded(server: FakeModelServer) -> list[ModelRequest]:
    return [request for request in server.requests if request.path == "/v1/embeddings"]


def test_what_embeddings_cost_is_spent_and_held_against_max_usd(project: Path, server: FakeModelServer) -> None:
    card = call("eval", "--json", "--max-usd", "0.0000001", exit_code=3)
    assert embedded(server) == []  # each could have cost more than there is
    assert any("stopped at max_usd" in said for said in card["warnings"])
    card = call("eval", "--json")
    assert (card["verdict"], card["spent_nano"]) == ("pass", 10 * 2 * 1_000_000)  # two texts of a token, ten times
    assert card["spent_nano"] > card["cost_nano"] == 0
    assert call("eval", "--json")["spent_nano"] == 0  # scores are kept


def test_stored_trials_are_scored_within_the_money_too(project: Path, server: FakeModelServer) -> None:
    server.respond = lambda request: failing(500) if request.path == "/v1/embeddings" else "Gladly"
    card = call("eval", "--json", exit_code=3)
    assert [one["unscored"] for one in card["metrics"] if one["name"] == "embedding_similarity"] == [10]
    server.respond = lambda request: "Gladly"
    before = len(embedded(server))
    call("eval", "--json", "--max-usd", "0.0000001", exit_code=3)
    assert len(embedded(server)) == before


def test_max_trials_is_what_one_evaluation_may_run(project: Path) -> None:
    agent = project / "agents" / "support.v1.yaml"
    agent.write_text(AGENT.replace("whole: true", "whole: true\n    max_trials: 9"))
    call("lock")
    assert "evals.max_trials is 9, and 10 cases x 1 trials are 10" in call("eval", exit_code=2)
    agent.write_text(AGENT.replace("whole: true", "whole: true\n    max_trials: 29"))
    call("lock")
    card = call("eval", "--json", "--buy-trials", "8")
    assert "evals.max_trials lets 2 trials a case be bought, not 8" in card["warnings"]
