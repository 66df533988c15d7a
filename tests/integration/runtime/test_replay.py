"""Replays of recorded runs: exact, with another version, and with a live model."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from tests.integration.runtime.test_cli import hosted, project, server, shell

from lockgate.bootstrap import App
from lockgate.testing import FakeModel, FakeModelServer

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
