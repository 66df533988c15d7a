"""`lockgate golden lint | stats | split | draft | accept`, from the shell's side, on a fake model server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import write_files
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest, Reply, failing

runner = CliRunner()

QUOTE = "Returns are taken for 30 days."
PROPOSED = [
    {"input": "How long may I return a lamp?", "expected_output": "30 days", "quote": QUOTE},
    {"input": "And a rug?", "expected_output": "90 days", "quote": "Rugs are taken for 90 days."},
]
AGENT = """\
agent:
  name: triage
  version: 1
  owner: support
  model: {provider: fake, name: m-2026-01-01}
  system_prompt: prompts/v1.md
  guardrails: {output_schema: schemas/facts.json}
"""


def answer(request: ModelRequest) -> Any:
    if "out of reach" in request.last_user:
        return failing(400)
    return Reply(text="no JSON" if "unreadable" in request.last_user else json.dumps({"cases": PROPOSED}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    cases = [
        {"id": f"c{n}", "input": f"order {n} broke", "expected_output": {"order": str(n)}, "cluster": f"g{n // 2}"}
        for n in range(20)
    ]
    with FakeModelServer(answer) as server:
        files = {
            "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}, "
            "local: {kind: local, weights: qwen2.5-coder-0.5b-instruct}}\nprices: prices.yaml\n",
            "prices.yaml": "fake: {m-2026-01-01: {input: 1.0, output: 2.0}}\n",
            "prompts/v1.md": "Extract the facts.\n",
            "schemas/facts.json": '{"type": "object", "properties": {"order": {"type": "string"}}}',
            "agents/triage.v1.yaml": AGENT,
            "golden.jsonl": "".join(json.dumps(case) + "\n" for case in cases),
            "returns.md": f"# Returns\n\n{QUOTE}\n",
        }
        write_files(tmp_path, files)
        monkeypatch.chdir(tmp_path)
        yield tmp_path


def call(*arguments: str, exit_code: int = 0) -> str:
    shown = runner.invoke(app, ["golden", *arguments])
    assert shown.exit_code == exit_code, shown.output + repr(shown.exception)
    return shown.output


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


WORLD = """\
class Shop:
    lookups = ("find",)

    def __init__(self):
        self.orders = {"7": "pending"}
        self.tools = {"find": self.find, "cancel": self.cancel}

    def state(self):
        return self.orders

    def find(self, order):
        return self.orders[order]

    def cancel(self, order):
        self.orders[order] = "cancelled"
        if order != "7":
            raise ValueError(f"no order {order}")


def world(case):
    return Shop()
"""


def test_lint_plays_what_is_expected_in_the_world_of_a_simulation(project: Path) -> None:
    def task(id: str, *calls: tuple[str, str]) -> dict[str, Any]:
        actions = [{"name": name, "arguments": {"order": order}} for name, order in calls]
        said = {"reason_for_call": f"{id}: cancel my order", "domain": "shop"}
        criteria = {"actions": actions}
        return {"id": id, "user_scenario": {"instructions": said}, "evaluation_criteria": criteria}

    Path("evals/worlds").mkdir(parents=True)
    Path("evals/worlds/shop.py").write_text(WORLD)
    tasks = [task("right", ("find", "8"), ("find", "7"), ("cancel", "7")), task("wrong", ("cancel", "9"))]
    Path("tasks.json").write_text(json.dumps(tasks))
    call("import", "tasks.json", "--to", "sim.jsonl", "--world", "evals/worlds/shop.py:world", "--owner", "ana")
    assert {row["metadata"]["simulation"]["world"] for row in rows("sim.jsonl")} == {"evals/worlds/shop.py:world"}
    shown = json.loads(call("lint", "sim.jsonl", "--embeddings", "letters", "--json", exit_code=1))
    (error,) = (problem for problem in shown["problems"] if problem["level"] == "error")
    assert error["cases"] == ["tau2-shop-wrong"]
    assert "refused by the world: no order 9" in error["message"]


def test_lint_names_every_bad_line_and_fails(project: Path) -> None:
    Path("bad.jsonl").write_text('{"id": "a", "input": "x"}\nnot json\n{"id": "b", "inpt": 1}\n')
    found = json.loads(call("lint", "bad.jsonl", "--json", exit_code=1))
    assert [one["line"] for one in found["problems"] if one["rule"] == "unreadable"] == [2, 3]


def test_an_empty_golden_set_is_an_error_and_not_a_small_one(project: Path) -> None:
    Path("empty.jsonl").write_text("")
    assert "no cases" in call("lint", "empty.jsonl", exit_code=1)


def test_warnings_fail_only_a_strict_lint(project: Path) -> None:
    call("lint", "golden.jsonl")
    call("lint", "golden.jsonl", "--strict", exit_code=1)


def test_expectations_are_held_against_the_agents_schema_in_one_line(project: Path) -> None:
    text = Path("golden.jsonl").read_text().replace('"order":', '"odrer":')
    Path("golden.jsonl").write_text(text)
    found = json.loads(call("lint", "golden.jsonl", "--agent", "agents/triage.v1.yaml", "--json", exit_code=1))
    (problem,) = [one for one in found["problems"] if one["rule"] == "unreachable"]
    assert "20 cases expect odrer" in problem["message"]


def test_a_provider_without_embeddings_is_a_usage_error(project: Path) -> None:
    assert "gives no embeddings" in call("lint", "golden.jsonl", "--embeddings", "local:x", exit_code=2)


def test_stats_are_drawn_into_a_picture(project: Path) -> None:
    assert "20 cases in 10 clusters" in call("stats", "golden.jsonl", "--picture", "out/golden.svg")
    assert Path("out/golden.svg").read_text().startswith("<svg")


def test_a_split_keeps_clusters_together_and_stays(project: Path) -> None:
    shares = ("--share", "dev=0.5", "--share", "test=0.5")
    call("split", "golden.jsonl", *shares)
    first = Path("golden.jsonl").read_bytes()
    call("split", "golden.jsonl", *shares, "--seed", "other")
    assert Path("golden.jsonl").read_bytes() == first
    assert len({(row["cluster"], row["split"]) for row in rows("golden.jsonl")}) == 10
    assert {row["split"] for row in rows("golden.jsonl")} == {"dev", "test"}


@pytest.mark.parametrize("shares", [("dev=0.3",), ("dev=nan",), ("=1",), ("dev=0.5", "dev=1"), ("dev=-1", "test=2")])
def test_shares_that_divide_nothing_are_refused_and_nothing_is_written(project: Path, shares: tuple[str, ...]) -> None:
    before = Path("golden.jsonl").read_bytes()
    call("split", "golden.jsonl", *(part for one in shares for part in ("--share", one)), exit_code=2)
    assert Path("golden.jsonl").read_bytes() == before


def test_drafts_wait_until_a_person_accepts_them(project: Path) -> None:
    before = Path("golden.jsonl").read_text()
    shown = call("draft", "returns.md", "--model", "fake:m-2026-01-01", "--to", "drafts.jsonl")
    assert "its quote is not in the source" in shown
    assert Path("golden.jsonl").read_text() == before
    (candidate,) = rows("drafts.jsonl")
    assert "no candidate 'nobody'" in call("accept", "drafts.jsonl", "nobody", "--to", "golden.jsonl", exit_code=2)
    call("accept", "drafts.jsonl", candidate["id"], "--to", "golden.jsonl", "--as", "ann")
    assert Path("golden.jsonl").read_text().startswith(before)
    assert rows("golden.jsonl")[-1]["metadata"] == {"drafted_from": "returns.md", "accepted_by": "ann"}
    assert not Path("drafts.jsonl").exists()  # nothing waits


def test_a_draft_without_a_candidate_is_no_success(project: Path) -> None:
    Path("odd.md").write_text("unreadable\n")
    shown = call("draft", "odd.md", "--model", "fake:m-2026-01-01", "--to", "drafts.jsonl", exit_code=4)
    assert "not the JSON" in shown
    assert not Path("drafts.jsonl").exists()


def test_a_golden_set_takes_no_draft_and_lint_finds_one_that_was_put_there(project: Path) -> None:
    before = Path("golden.jsonl").read_text()
    model = ("--model", "fake:m-2026-01-01")
    assert "no candidates" in call("draft", "returns.md", *model, "--to", "golden.jsonl", exit_code=2)
    assert Path("golden.jsonl").read_text() == before
    call("draft", "returns.md", *model, "--to", "drafts.jsonl")
    Path("golden.jsonl").write_text(before + Path("drafts.jsonl").read_text())
    found = json.loads(call("lint", "golden.jsonl", "--json", exit_code=1))
    assert [one["rule"] for one in found["problems"] if one["level"] == "error"] == ["unreviewed"]


def test_what_was_proposed_before_the_model_failed_is_kept(project: Path) -> None:
    Path("far.md").write_text("out of reach\n")
    shown = call("draft", "returns.md", "far.md", "--model", "fake:m-2026-01-01", "--to", "drafts.jsonl", exit_code=4)
    assert "1 candidates were added to drafts.jsonl" in shown
    assert [row["expected_output"] for row in rows("drafts.jsonl")] == ["30 days"]


def test_a_document_without_text_and_a_model_without_a_provider_are_named(project: Path) -> None:
    Path("empty.md").write_text(" \n")
    model = ("--model", "fake:m-2026-01-01")
    assert "empty.md: has no text" in call("draft", "empty.md", *model, "--to", "drafts.jsonl", exit_code=2)
    assert "--model 'm' is not" in call("draft", "returns.md", "--model", "m", "--to", "drafts.jsonl", exit_code=2)
