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
from lockgate.errors import InputError
from lockgate.evals.golden import write_cases
from lockgate.evals.golden.importers import import_cases
from lockgate.evals.model import Case
from lockgate.evals.scorers.final_state import final_state
from lockgate.evals.scorers.python import load_function
from lockgate.evals.scorers.sample import Mark, Sample
from lockgate.evals.simulation.world import make_calls
from lockgate.results import RunResult
from lockgate.testing import FakeModelServer, call
from lockgate.testing.replies import ModelRequest

RETAIL = Path(__file__).parents[4] / "shared" / "data" / "tau2-retail"
pytestmark = pytest.mark.skipif(not RETAIL.is_dir(), reason="../shared/data/tau2-retail is not beside this checkout")
EXAMPLE = Path(__file__).parents[3] / "examples" / "tau2-retail"
WORLD = "evals/worlds/retail.py:world"
REFUSED = {"tau2-retail-64", "tau2-retail-105"}
"""Tasks whose expected calls the shop refuses by its own rules."""
EXPECTED = {case.id: case for case in import_cases(RETAIL / "tasks.json", world=WORLD).cases} if RETAIL.is_dir() else {}


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
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "data").mkdir()
    shutil.copy(RETAIL / "policy.md", tmp_path / "data/policy.md")
    (tmp_path / "evals/golden").mkdir()
    write_cases(tmp_path / "evals/golden/retail.jsonl", list(EXPECTED.values()))
    agent = tmp_path / "agents/shop.v1.yaml"
    agent.write_text(
        agent.read_text().replace('provider: ollama, name: "llama3.1:70b"', "provider: fake, name: model-1")
    )
    with FakeModelServer(keeper) as server:
        (tmp_path / "lockgate.yaml").write_text(
            f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\nprices: prices.yaml\n"
        )
        (tmp_path / "prices.yaml").write_text("fake: {model-1: {input: 1.0, output: 2.0}}\n")
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


@pytest.mark.parametrize("number", [0, 37, 40, 59])  # exchange, a wrong name and items, payment, address and cancelling
async def test_an_agent_that_does_what_was_expected_leaves_the_expected_database(
    project: Path, keeper: Shopkeeper, number: int
) -> None:
    case = EXPECTED[f"tau2-retail-{number}"]
    keeper.calls = list(case.expected_tools or ())
    result = await play(case)
    assert result.status == "completed", result.error
    assert result.transcript[0] == {"role": "user", "content": "please help"}
    assert result.changes
    assert scored(case, result) == Mark(1.0, f"{len(result.changes)} changes, as expected")


def test_the_expected_calls_of_all_other_tasks_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the part of the database that a task is about: its customers, their orders, all products."""
    whole = json.loads((RETAIL / "db.json").read_text())
    make_world = load_function(WORLD, EXAMPLE)
    refused = set()
    for case in EXPECTED.values():
        named = json.dumps(case.expected_tools)
        orders = {id: one for id, one in whole["orders"].items() if id in named}
        customers = {one["user_id"] for one in orders.values()}
        users = {
            id: user
            for id, user in whole["users"].items()
            if id in customers or id in named or user["email"] in named or user["address"]["zip"] in named
        }
        part = json.dumps({"products": whole["products"], "users": users, "orders": orders})
        monkeypatch.setitem(make_world.__globals__, "_database", lambda part=part: part)
        try:
            make_calls(make_world(case), case.expected_tools or [])
        except InputError:
            refused.add(case.id)
    assert len(EXPECTED) == 114
    assert refused == REFUSED


async def test_a_write_that_is_missing_or_wrong_is_seen_in_the_database(project: Path, keeper: Shopkeeper) -> None:
    case = EXPECTED["tau2-retail-59"]
    keeper.calls = [one for one in case.expected_tools or () if "pending" not in one["name"]]
    result = await play(case)
    assert (result.status, result.changes) == ("completed", {})
    mark = scored(case, result)
    assert mark.value == 0.0
    assert "differ" in mark.reason


def test_trials_in_a_world_are_forgotten_by_fresh_and_shown_in_reports(project: Path, keeper: Shopkeeper) -> None:
    case = EXPECTED["tau2-retail-59"]
    keeper.calls = list(case.expected_tools or ())
    Path("g.jsonl").write_bytes(msgspec.json.encode(case) + b"\n")
    evaluate = ["eval", "--agent", "agents/shop.v1.yaml", "--dataset", "g.jsonl", "--threshold", "final_state=0.5"]
    for more, known in (([], 0), ([], 4), (["--fresh"], 0)):
        shown = CliRunner().invoke(app, [*evaluate, *more, "--json"])
        assert json.loads(shown.stdout)["cached_trials"] == known
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")  # the world is named from the project's root
    report = CliRunner().invoke(app, ["report", "--format", "junit"])
    (shown_case,) = (one for one in ET.fromstring(report.stdout).iter("testcase") if one.get("name") == case.id)
    assert shown_case.find("skipped") is None  # as a case without a stored trial would be


def test_lint_sees_that_a_case_in_a_world_was_right_in_every_trial(project: Path, keeper: Shopkeeper) -> None:
    case = EXPECTED["tau2-retail-59"]
    keeper.calls = list(case.expected_tools or ())
    Path("g.jsonl").write_bytes(msgspec.json.encode(case) + b"\n")
    for more in ([], ["--model-override", "fake:model-1"]):  # kept as two versions' trials
        CliRunner().invoke(app, ["eval", "--agent", "agents/shop.v1.yaml", "--dataset", "g.jsonl", *more])
    shown = CliRunner().invoke(app, ["golden", "lint", "g.jsonl", "--agent", "agents/shop.v1.yaml", "--json"])
    (found,) = (one for one in json.loads(shown.stdout)["problems"] if one["rule"] == "saturated")
    assert "right in every trial of 2 versions" in found["message"]
