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


def test_a_prompt_nobody_has_is_named(project: Path, lockgate: Lockgate) -> None:
    assert "no prompt" in lockgate("prompts", "show", "nothing", code=2)
