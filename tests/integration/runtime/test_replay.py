"""Replays of recorded runs: exact, with another version, and with a live model."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from tests.integration.runtime.test_cli import hosted, project, server, shell

from lockgate.bootstrap import App
from lockgate.testing import FakeModel, FakeModelServer, ModelRequest, Reply, ToolCall

__all__ = ["hosted", "project", "server", "shell"]


def edit(app: App, name: str, old: str, new: str) -> None:
    path = app.project.root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def run(hosted: Any, shell: Any) -> str:
    """A completed run: one model call, a read, and an approved write."""
    waiting = hosted()
    shell("approvals", "approve", waiting.approval_id)
    hosted(FakeModel([]), resume=waiting.run_id)
    return str(waiting.run_id)


def test_a_recorded_replay_needs_neither_files_nor_network(
    shell: Any, run: str, project: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(project, "prompts/support.md", "You find", "You never find")
    (project.project.root / "agents/support.v1.yaml").unlink()

    def refuse(*_: Any) -> None:
        raise AssertionError("a recorded replay opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    replayed = shell("replay", run, "--recorded", "--json")
    assert (replayed["exact"], replayed["replayed"]) == (True, 3)


def test_another_version_stops_at_its_first_different_step_and_shows_it(
    shell: Any, run: str, project: App, server: FakeModelServer
) -> None:
    edit(project, "prompts/support.md", "You find the order number.", "You find the order's number, politely.")
    said = shell("replay", run, "--version", "agents/support.v1.yaml", code=1)
    assert "Diverged after 0 of 3 steps" in said
    assert "parts here" in said
    assert "-" in said
    assert "politely" in said
    found = shell("replay", run, "--version", "agents/support.v1.yaml", "--json", code=1)
    assert found["parting"]["seq"] == 0
    assert "politely" not in str(found["parting"]["expected"])
    assert "politely" in str(found["parting"]["got"])
    assert server.requests == []


def test_a_version_whose_contract_asks_for_less_than_was_recorded_diverges_at_that_call(
    shell: Any, run: str, project: App
) -> None:
    edit(project, "agents/support.v1.yaml", "{name: refund, approval: required}", "{name: refund, approval: none}")
    found = shell("replay", run, "--version", "agents/support.v1.yaml", "--json", code=1)
    assert found["parting"]["seq"] == 2
    assert "waits for an approval; now it is carried out" in found["divergence"]


def test_another_version_goes_on_live_from_where_it_parts_and_writes_nothing(
    shell: Any, run: str, project: App, server: FakeModelServer
) -> None:
    edit(project, "prompts/support.md", "You find", "Now you find")
    found = shell("replay", run, "--version", "agents/support.v1.yaml", "--live-model", "--json", code=1)
    assert (found["status"], found["output"]) == ("completed", "The kettle is refunded.")
    assert len(server.requests) == 1
    assert [step["status"] for step in found["taken"]] == ["done", "done", "stubbed"]
    assert (project.project.root / "refunds.txt").read_text() == "A-1\n"


def test_a_live_model_is_asked_anew_and_its_end_is_compared(shell: Any, run: str, server: FakeModelServer) -> None:
    assert "The same end" in shell("replay", run, "--live-model")
    assert len(server.requests) == 1
    server.respond = lambda request: {"order_id": "B-2"}
    found = shell("replay", run, "--live-model", "--json", code=1)
    assert found["error_type"] == "unscored"
    assert "--live-reads" in found["error"]
    assert shell("replay", run, "--live-model", "--live-reads", "--json")["status"] == "completed"


def test_flags_that_say_nothing_are_refused(shell: Any, run: str) -> None:
    assert "--live-model" in shell("replay", run, "--live-reads", code=2)


def test_a_run_says_what_its_provider_called_what_answered(shell: Any, run: str) -> None:
    [served] = shell("runs", "show", run, "--json")["served"].items()
    assert served[0] == "fake/fake-model-2026-01-01"
    assert served[1]


GRAPH = """
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition

from lockgate.runtime import current_run


class State(TypedDict):
    messages: Annotated[list, add_messages]


def model():
    run = current_run()
    return ChatOpenAI(base_url=run.base_url, api_key=run.api_key, model=run.model)


@tool
async def refund(order_id: str) -> str:
    \"\"\"Pays an order back.\"\"\"
    return str(await current_run().tool("refund", {"order_id": order_id}))


def look(name):
    def look(state):  # in a thread of its own, beside the others
        return {"messages": [model().invoke([("user", name)])]}

    return look


async def act(state):
    return {"messages": [await model().bind_tools([refund]).ainvoke([("user", "act"), *state["messages"][4:]])]}


graph = StateGraph(State)
graph.add_node("act", act)
graph.add_node("tools", ToolNode([refund]))
for name in ("look a", "look b", "look c"):
    graph.add_node(name, look(name))
    graph.add_edge(START, name)
graph.add_edge(["look a", "look b", "look c"], "act")
graph.add_conditional_edges("act", tools_condition)
graph.add_edge("tools", "act")
app = graph.compile()
"""


@pytest.mark.integration_only
def test_a_real_graph_with_nodes_at_once_is_resumed_and_replayed_exactly(
    shell: Any, hosted: Any, project: App, server: FakeModelServer
) -> None:
    pytest.importorskip("langgraph")
    (project.project.root / "graph.py").write_text(GRAPH)
    (project.project.root / "agents/support.v1.yaml").write_text(
        "agent:\n  name: support\n  version: 1\n"
        "  model: {provider: fake, name: fake-model-2026-01-01, temperature: 0}\n"
        "  system_prompt: prompts/support.md\n"
        '  framework: {kind: langgraph, entrypoint: "graph:app"}\n'
        "  tools: [{name: refund, approval: required}]\n"
    )
    project.versions.lock()

    def respond(request: ModelRequest) -> Any:
        if request.messages[0]["content"] != "act":
            return f"seen {request.messages[0]['content']}"
        asked = any(message["role"] == "tool" for message in request.messages)
        call = ToolCall(name="refund", arguments={"order_id": "A-1"}, id="call_1")
        return "done" if asked else Reply(tool_calls=(call,))

    waiting = hosted(FakeModel(respond))
    assert (waiting.status, waiting.model_calls) == ("suspended", 4)
    shell("approvals", "approve", waiting.approval_id)
    ended = hosted(FakeModel(respond), resume=waiting.run_id)
    assert (ended.status, ended.output) == ("completed", "done")
    for _ in range(3):  # threads come in another order each time
        replayed = shell("replay", waiting.run_id, "--json")
        assert (replayed["exact"], replayed["replayed"]) == (True, 6), replayed["divergence"]
    server.respond = respond
    live = shell("replay", waiting.run_id, "--live-model", "--json")
    assert (live["exact"], [step["status"] for step in live["taken"]].count("stubbed")) == (True, 1)
    edit(project, "graph.py", "look c", "look d")
    other = shell("replay", waiting.run_id, "--version", "agents/support.v1.yaml", "--json", code=1)
    assert "look d" in other["divergence"]
    assert other["error_type"] == "diverged"
    assert (project.project.root / "refunds.txt").read_text() == "A-1\n"
