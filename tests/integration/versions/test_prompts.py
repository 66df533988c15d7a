"""`lockgate prompts` on a project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Lockgate = Callable[..., Any]


def test_a_prompt_is_listed_shown_compared_released_and_rolled_back(project: Path, lockgate: Lockgate) -> None:
    lockgate("lock")
    [prompt] = lockgate("prompts", "list", "--json")
    assert (prompt["used_by"], prompt["owner"]) == (["support"], "@acme/agents")
    lockgate("prompts", "release", prompt["path"], "--env", "dev")
    path = project / prompt["path"]
    path.write_text(path.read_text() + "Be brief.\n")
    first = lockgate("prompts", "show", prompt["name"], "--json")["texts"][0]
    lockgate("lock")
    texts = lockgate("prompts", "show", prompt["name"], "--json")["texts"]
    assert len({text["digest"] for text in texts}) == 2
    assert {tuple(text["labels"]) for text in texts} == {("dev",), ()}
    said = lockgate("prompts", "compare", first["behaviour_digest"], "support")
    assert "+Be brief." in said


def test_a_released_prompt_is_taken_back_for_every_agent_that_uses_it(project: Path, lockgate: Lockgate) -> None:
    lockgate("lock")
    [prompt] = lockgate("prompts", "list", "--json")
    [first] = lockgate("prompts", "release", prompt["path"], "--env", "dev", "--json")
    path = project / prompt["path"]
    path.write_text(path.read_text() + "Be brief.\n")
    lockgate("lock")
    lockgate("deploy", "support", "--env", "dev", "--direct")
    [undone] = lockgate("prompts", "undo", prompt["name"], "--env", "dev", "--reason", "too curt", "--json")
    assert undone["stable"]["behaviour_digest"] == first["version"]["behaviour_digest"]
    texts = lockgate("prompts", "show", prompt["name"], "--json")["texts"]
    assert {text["behaviour_digest"]: text["labels"] for text in texts}[undone["stable"]["behaviour_digest"]] == ["dev"]
    assert "held back" in lockgate("prompts", "release", prompt["name"], "--env", "dev", code=1)
    assert "no warm previous" in lockgate("prompts", "undo", prompt["name"], "--env", "dev", "--reason", "x", code=1)


def test_a_prompt_nobody_has_is_named(project: Path, lockgate: Lockgate) -> None:
    assert "no prompt" in lockgate("prompts", "show", "nothing", code=2)
