"""``lockgate compare``: versions, evaluations by id, scorecards from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.commands import call
from tests.conftest import write_files

from lockgate.testing import FakeModelServer, ModelRequest, Reply

AGENT = """agent:
  name: triage
  version: {0}
  model: {{provider: fake, name: m-2026-01-01}}
  system_prompt: prompts/v{0}.md
  evals: {{dataset: g.jsonl, whole: true, thresholds: {{field_match: {{min: 0.5, margin: 0.1}}}}}}
"""


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    def answer(request: ModelRequest) -> Reply:
        word = request.last_user
        forgets = "Forget" in str(request.messages[0]) and int(word[1:]) % 4 == 0
        return Reply(text=json.dumps({"word": "" if forgets else word}))

    with FakeModelServer(answer) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeModelServer) -> Path:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    cases = [
        {"id": f"c{n}", "input": f"w{n}", "expected_output": {"word": f"w{n}"}, "tags": ["four"] if n % 4 == 0 else []}
        for n in range(60)
    ]
    files = {
        "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
        "prices: prices.yaml\n",
        "prices.yaml": "fake: {m-2026-01-01: {input: 1.0, output: 2.0}}\n",
        "g.jsonl": "".join(json.dumps(case) + "\n" for case in cases),
        "prompts/v1.md": "Say it.\n",
        "prompts/v2.md": "Forget some.\n",
        **{f"agents/triage.v{n}.yaml": AGENT.format(n) for n in (1, 2)},
    }
    write_files(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    call("lock")
    return tmp_path


def test_two_evaluations_are_compared_by_id_and_nothing_is_run(project: Path, server: FakeModelServer) -> None:
    first = call("eval", "--agent", "triage@1", "--json")
    second = call("eval", "--agent", "triage@2", "--baseline", "none", "--json")
    asked = len(server.requests)
    arguments = ("compare", first["id"], second["id"], "--markdown", "o/c.md", "--html", "o/c.html", "--json")
    card = call(*arguments, exit_code=1)
    metric = next(one for one in card["metrics"] if one["name"] == "field_match")
    assert metric["difference"] == pytest.approx(-0.25)
    assert metric["difference_interval"]["high"] < 0
    assert len(card["broken"]) == 15
    assert card["slices"][0]["name"] == "four"
    assert card["baseline_run_usd"] == first["run_usd"] > 0
    assert len(server.requests) == asked
    assert "newly broken" in Path("o/c.md").read_text().lower()
    assert "c12" in Path("o/c.html").read_text()
    assert "triage@1" in call("compare", first["id"], second["id"], exit_code=1)


def test_versions_are_run_once_and_then_compared_from_what_was_seen(project: Path, server: FakeModelServer) -> None:
    call("compare", "triage@1", "triage@2", exit_code=1)
    assert len(server.requests) == 120
    for version in ("triage@1", "triage@2"):
        call("eval", "--agent", version, "--baseline", "none")
    card = call("compare", "triage@1", "triage@2", "--json", exit_code=1)
    assert len(server.requests) == 120
    assert card["id"].startswith("comparison_")  # read from two stored runs


def test_scorecards_from_files_are_paired_where_their_runs_are_stored_and_say_so_where_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, name in (("triage@1", "a.json"), ("triage@2", "b.json")):
        call("eval", "--agent", version, "--baseline", "none")
        call("report", "--format", "json", "--output", name)
    paired = call("compare", "a.json", "b.json", "--json", exit_code=1)
    assert len(paired["broken"]) == 15
    monkeypatch.setenv("LOCKGATE_HOME", str(project / "elsewhere"))
    apart = call("compare", "a.json", "b.json", "--json", exit_code=1)
    assert apart["broken"] == []
    assert any("not paired" in warning for warning in apart["warnings"])
    by_name = [{one["name"]: one for one in card["metrics"]} for card in (paired, apart)]
    wide, narrow = (
        card["field_match"]["difference_interval"]["high"] - card["field_match"]["difference_interval"]["low"]
        for card in by_name[::-1]
    )
    assert wide > 0.8 * narrow
    equal = call("compare", "b.json", "b.json", "--json", exit_code=3)
    assert "not settled within the margin" in " ".join(equal["reasons"])


def test_what_is_no_scorecard_is_a_usage_error(project: Path) -> None:
    Path("x.json").write_text('{"id": 1}')
    call("compare", "x.json", "x.json", exit_code=2)
    call("compare", "none.json", "x.json", exit_code=2)
    call("compare", "eval_none", "eval_none", exit_code=2)
