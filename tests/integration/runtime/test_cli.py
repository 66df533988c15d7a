"""`run`, `runs`, `replay`, `approvals` and `tools` from the shell's side, on a project with a fake model server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lockgate.bootstrap import App, open_app
from lockgate.cli import app
from lockgate.ids import new_id
from lockgate.results import RunResult
from lockgate.runs import RunRequest
from lockgate.runtime.cli import code_folder
from lockgate.runtime.loader import Code
from lockgate.runtime.service import RunService
from lockgate.testing import FakeModel, FakeModelServer, failing

FILES = {
    "agents/support.v1.yaml": """\
agent:
  name: support
  version: 1
  owner: support-team
  model: {provider: fake, name: fake-model-2026-01-01, temperature: 0}
  system_prompt: prompts/support.md
  tools: [read_order, {name: refund, approval: required}, decide]
  handler: decide
  guardrails: {output_schema: schemas/facts.json}
""",
    "prompts/support.md": "You find the order number.\n",
    "schemas/facts.json": '{"properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}\n',
    "tools/read_order.yaml": """\
tool:
  name: read_order
  description: Looks an order up.
  effect: read
  python: tools/orders.py:read_order
  input: {type: object, properties: {order_id: {type: string}}, required: [order_id]}
""",
    "tools/refund.yaml": """\
tool:
  name: refund
  description: Pays an order back.
  effect: write
  python: tools/orders.py:refund
  input: {type: object, properties: {order_id: {type: string}}, required: [order_id]}
""",
    "tools/decide.yaml": """\
tool: {name: decide, description: Decides., effect: pure, python: "tools/orders.py:decide", input: {type: object}}
""",
    "tools/orders.py": """\
import pathlib

async def read_order(order_id):
    return {"id": order_id, "item": "kettle"}

def refund(order_id):
    with pathlib.Path("refunds.txt").open("a") as file:
        file.write(order_id + "\\n")
    return {"ok": True}

async def decide(facts, call):
    order = await call("read_order", order_id=facts["order_id"])
    await call("refund", order_id=order["id"])
    return f"The {order['item']} is refunded."
""",
}


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    with FakeModelServer(lambda request: {"order_id": "A-1"}) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeModelServer) -> App:
    config = f"project: shop\nproviders:\n  fake: {{kind: openai, base_url: {server.base_url}}}\nprices: prices.yaml\n"
    prices = "fake: {fake-model-2026-01-01: {input: 1.0, output: 2.0}}\n"
    for name, text in {**FILES, "lockgate.yaml": config, "prices.yaml": prices}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    opened = open_app(tmp_path)
    opened.versions.lock()
    return opened


@pytest.fixture
def shell(project: App) -> Callable[..., Any]:
    def shell(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in arguments else result.output

    return shell


@pytest.fixture
def hosted(project: App) -> Callable[..., RunResult]:
    """A recorded run, as a host makes it; ``resume`` continues a suspended one."""

    def hosted(model: Any = None, *, resume: str | None = None) -> RunResult:
        async def main() -> RunResult:
            version = project.versions.load(project.versions.find("support"))
            code = code_folder(project, version.behaviour_digest)
            project.versions.materialise(version, code)
            effective = project.versions.effective_digest(version, "prod")
            client = model or FakeModel(lambda request: {"order_id": "A-1"})
            service = RunService(
                version,
                effective,
                control=project.control,
                clock=project.clock,
                code=Code(code),
                client_for=lambda token, traceparent: client,
                emit=None,
                host="host_1",
            )
            try:
                if resume is not None:
                    return await (await service.take(resume, "t"))()  # type: ignore[no-any-return]
                names = ("assignment_key", "tenant", "token")
                return await service.run(
                    RunRequest(
                        **dict.fromkeys(names, "x"),
                        run_id=new_id("run"),
                        agent="support",
                        environment="prod",
                        behaviour_digest=version.behaviour_digest,
                        effective_digest=effective,
                        arm="stable",
                        rollout_id=None,
                        session=None,
                        input="order A-1 is broken",
                        trace_id=os.urandom(16).hex(),
                        parent_span=None,
                    )
                )
            finally:
                await asyncio.to_thread(service.committer.close)

        return asyncio.run(main())

    return hosted


def test_a_local_run_answers_and_writes_nothing(shell: Any, project: App) -> None:
    result = shell("run", "support", "order A-1 is broken", "--local", "--json")
    assert (result["status"], result["output"]) == ("completed", "The kettle is refunded.")
    assert [use["name"] for use in result["tools_used"]] == ["read_order", "refund"]
    assert result["cost_nano"] > 0
    assert not (project.project.root / "refunds.txt").exists()


def test_a_local_run_shows_the_answer_and_what_it_took(shell: Any) -> None:
    said = shell("run", "support@1", "order A-1 is broken", "--local")
    assert "The kettle is refunded." in said
    assert "1 model calls · 2 tool calls" in said


def test_a_failed_run_has_exit_code_1_and_its_word(shell: Any, server: FakeModelServer) -> None:
    server.respond = lambda request: failing(500, "out of memory")
    assert "model_error" in shell("run", "support", "hello", "--local", code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nobody", "hi", "--local"), "nobody"),
        (("run", "support", "hi"), "LOCKGATE_API_KEY"),
        (("runs", "show", "run_x"), "run_x"),
        (("runs", "list", "--status", "done"), "--status"),
        (("replay", "run_x"), "run_x"),
        (("approvals", "show", "apr_x"), "apr_x"),
        (("approvals", "approve", "apr_x"), "apr_x"),
        (("approvals", "list", "--status", "maybe"), "--status"),
        (("tools", "show", "support", "refnd"), "read_order"),
        (("tools", "list", "nobody"), "nobody"),
    ],
)
def test_what_does_not_exist_is_named_with_exit_code_2(
    shell: Any, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCKGATE_API_KEY", raising=False)
    output = shell(*arguments, code=2)
    assert said in output
    assert "→" in output


def test_a_gateway_that_is_not_up_is_a_clear_error(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKGATE_API_KEY", "k")
    assert "lockgate up" in shell("run", "support", "hi", "--url", "http://127.0.0.1:9", code=4)


def test_runs_are_listed_and_shown_step_by_step(shell: Any, hosted: Any) -> None:
    run = hosted()
    assert run.run_id in shell("runs")
    assert [row["id"] for row in shell("runs", "list", "--status", "suspended", "--json")] == [run.run_id]
    assert shell("runs", "list", "--status", "failed", "--json") == []
    shown = shell("runs", "show", run.run_id)
    for part in (
        "fake/fake-model-2026-01-01",
        "read_order",
        "refund",
        "waiting",
        "order A-1 is broken",
        run.approval_id,
    ):
        assert part in shown
    assert [step["status"] for step in shell("runs", "show", run.run_id, "--json")["steps"]] == [
        "done",
        "done",
        "waiting",
    ]


def test_an_approval_is_listed_approved_and_used_once(shell: Any, hosted: Any, project: App) -> None:
    run = hosted()
    [listed] = shell("approvals", "list", "--json")
    assert (listed["id"], listed["tool"], listed["arguments"]) == (run.approval_id, "refund", {"order_id": "A-1"})
    assert "refund" in shell("approvals", "show", run.approval_id)
    assert "continues" in shell("approvals", "approve", run.approval_id, "--by", "ann", "--reason", "seen it")
    assert "was approved by ann already" in shell("approvals", "approve", run.approval_id, code=1)
    assert shell("approvals", "list") == "Nothing waits for a decision.\n"
    resumed = hosted(FakeModel([]), resume=run.run_id)
    assert resumed.output == "The kettle is refunded."
    assert (project.project.root / "refunds.txt").read_text() == "A-1\n"
    assert shell("approvals", "show", run.approval_id, "--json")["status"] == "executed"


def test_a_rejected_approval_says_who_and_why(shell: Any, hosted: Any) -> None:
    run = hosted()
    shell("approvals", "reject", run.approval_id, "--by", "bob", "--reason", "no photo")
    resumed = hosted(FakeModel([]), resume=run.run_id)
    assert resumed.error_type == "approval_rejected"
    assert "bob" in str(resumed.error)
    assert "no photo" in str(resumed.error)


def test_a_replay_is_exact_and_does_nothing_again(
    shell: Any, hosted: Any, project: App, server: FakeModelServer
) -> None:
    run = hosted()
    assert "Exact: all 3 steps" in shell("replay", run.run_id)
    shell("approvals", "approve", run.approval_id)
    hosted(FakeModel([]), resume=run.run_id)
    replayed = shell("replay", run.run_id, "--json")
    assert (replayed["exact"], replayed["steps"], replayed["output"]) == (True, 3, "The kettle is refunded.")
    assert (project.project.root / "refunds.txt").read_text() == "A-1\n"
    assert server.requests == []


def test_a_replay_of_a_failed_run_fails_the_same_way(shell: Any, hosted: Any) -> None:
    run = hosted(FakeModel(lambda request: failing(503)))
    assert shell("replay", run.run_id, "--json")["error_type"] == "model_error"


def test_a_replay_that_differs_names_the_first_difference(shell: Any, hosted: Any, project: App) -> None:
    from sqlalchemy import update

    from lockgate.storage.schema import run_steps

    run = hosted()
    with project.control.write() as connection:
        changed = {"message": {"role": "assistant", "content": '{"order_id": "B-2"}'}}
        changed |= {"model_served": "m", "finish_reason": "stop"}
        where = (run_steps.c.run_id == run.run_id, run_steps.c.seq == 0)
        connection.execute(update(run_steps).where(*where).values(response=changed))
    said = shell("replay", run.run_id, code=1)
    assert "Diverged after 1 of 3 steps" in said
    assert "order_id was 'A-1', is 'B-2'" in said


def test_tools_are_listed_with_what_they_do(shell: Any) -> None:
    rows = {row["name"]: row for row in shell("tools", "list", "--json")}
    assert {name: row["effect"] for name, row in rows.items()} == {
        "read_order": "read",
        "refund": "write",
        "decide": "pure",
    }
    assert (rows["refund"]["approval"], rows["decide"]["handler"]) == (True, True)
    assert "asks" in shell("tools", "list", "support")
    assert "Pays an order back." in shell("tools", "show", "support", "refund")
