"""Tasks of tau2-bench's retail shop, driven to their end: a simulated user, a world of the trial's own, its state."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from lockgate.bootstrap import open_app
from lockgate.cli import app
from lockgate.evals.model import Case
from lockgate.evals.scorers.final_state import final_state
from lockgate.evals.scorers.sample import Mark, Sample
from lockgate.results import RunResult
from lockgate.testing import FakeModelServer, call
from lockgate.testing.replies import ModelRequest

RETAIL = Path(__file__).parents[4] / "shared" / "data" / "tau2-retail"
pytestmark = pytest.mark.skipif(not RETAIL.is_dir(), reason="../shared/data/tau2-retail is not beside this checkout")
KNOWN = (
    "find_user_id_by_name_zip",
    "get_order_details",
    "cancel_pending_order",
    "modify_pending_order_address",
    "modify_user_address",
    "return_delivered_order_items",
)
WRITES = KNOWN[2:]


def tasks() -> list[dict[str, Any]]:
    """The tasks whose expected calls our shop knows, one write at least."""
    found = []
    for task in json.loads((RETAIL / "tasks.json").read_text()):
        names = {action["name"] for action in task["evaluation_criteria"]["actions"] or ()}
        if names <= {*KNOWN} and names & {*WRITES}:
            found.append(task)
    return found


def case_of(task: dict[str, Any]) -> Case:
    said = task["user_scenario"]["instructions"]
    user = {
        "goal": said["reason_for_call"],
        "persona": said["task_instructions"],
        "known": said["known_info"] or "",
        "unknown": said["unknown_info"] or "",
    }
    calls = [{"name": one["name"], "arguments": one["arguments"]} for one in task["evaluation_criteria"]["actions"]]
    return Case(
        id=f"retail-{task['id']}",
        input=user["goal"],
        expected_tools=calls,
        metadata={"simulation": {"user": user, "world": "evals/worlds/retail_world.py:world"}},
    )


class Shopkeeper:
    """A model that plays both sides: the user asks once and stops, the agent makes the calls it was given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, request: ModelRequest) -> Any:
        if request.messages[0]["content"].startswith("You play a customer"):
            return "please help" if len(request.messages) == 2 else "###STOP###"
        made = sum(message["role"] == "tool" for message in request.messages)
        if made < len(self.calls):
            return call(self.calls[made]["name"], **self.calls[made]["arguments"])
        return "Done."


@pytest.fixture
def keeper() -> Shopkeeper:
    return Shopkeeper()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeper: Shopkeeper) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.setenv("TAU2_RETAIL", str(RETAIL))
    with FakeModelServer(keeper) as server:
        files = {
            "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
            "prices: prices.yaml\n",
            "prices.yaml": "fake: {model-1: {input: 1.0, output: 2.0}}\n",
            "agents/shop.v1.yaml": "agent:\n  name: shop\n  version: 1\n  owner: team\n"
            "  model: {provider: fake, name: model-1, temperature: 0}\n  system_prompt: prompts/shop.md\n"
            f"  tools: [{', '.join(KNOWN)}]\n",
            "prompts/shop.md": (RETAIL / "policy.md").read_text(),
            "tools/outside.py": "def outside(**arguments):\n    raise AssertionError('reached the outside')\n",
        }
        for name in KNOWN:
            effect = "write" if name in WRITES else "read"
            files[f"tools/{name}.yaml"] = (
                f"tool: {{name: {name}, effect: {effect}, python: 'tools/outside.py:outside'}}\n"
            )
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "evals/worlds").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("retail_world.py"), tmp_path / "evals/worlds/retail_world.py")
        monkeypatch.chdir(tmp_path)
        yield tmp_path


async def play(case: Case) -> RunResult:
    app = open_app()
    async with app.subject(app.versions.find("agents/shop.v1.yaml"), "dev") as subject:
        return await subject(case, 0)


def scored(case: Case, result: RunResult) -> Mark:
    mark = final_state()(Sample(case, case.input, result))
    assert isinstance(mark, Mark)
    return mark


async def test_an_agent_that_does_what_was_expected_leaves_the_expected_database(
    project: Path, keeper: Shopkeeper
) -> None:
    found = tasks()
    assert len(found) >= 3
    for case in map(case_of, found[:3]):
        keeper.calls = list(case.expected_tools or ())
        result = await play(case)
        assert result.status == "completed", result.error
        assert result.transcript[0] == {"role": "user", "content": "please help"}
        assert result.changes
        assert scored(case, result) == Mark(1.0, f"{len(result.changes)} changes, as expected")


async def test_a_write_that_is_missing_or_wrong_is_seen_in_the_database(project: Path, keeper: Shopkeeper) -> None:
    case = case_of(tasks()[0])
    keeper.calls = [one for one in case.expected_tools or () if one["name"] not in WRITES]
    result = await play(case)
    assert (result.status, result.changes) == ("completed", {})
    mark = scored(case, result)
    assert mark.value == 0.0
    assert "differ" in mark.reason


def test_trials_in_a_world_are_forgotten_by_fresh_and_shown_in_reports(project: Path, keeper: Shopkeeper) -> None:
    case = case_of(tasks()[0])
    keeper.calls = list(case.expected_tools or ())
    Path("g.jsonl").write_bytes(msgspec.json.encode(case) + b"\n")
    evaluate = ["eval", "--agent", "agents/shop.v1.yaml", "--dataset", "g.jsonl", "--threshold", "final_state=0.5"]
    for more, known in (([], 0), ([], 1), (["--fresh"], 0)):
        shown = CliRunner().invoke(app, [*evaluate, *more, "--json"])
        assert json.loads(shown.stdout)["cached_trials"] == known
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")  # the world is named from the project's root
    report = CliRunner().invoke(app, ["report", "--format", "junit"])
    (shown_case,) = (one for one in ET.fromstring(report.stdout).iter("testcase") if one.get("name") == case.id)
    assert shown_case.find("skipped") is None  # as a case without a stored trial would be
