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


def test_a_name_stands_for_its_newest_version_and_a_release_for_the_agent_that_names_it(
    project: Path, lockgate: Lockgate
) -> None:
    agent = next((project / "agents").iterdir())
    old = agent.read_text()
    for version in ("9", "10"):
        text = f"name: brief\nversion: {version}\ntemplate: You sort mail, as of {version}.\n"
        (project / f"prompts/brief.v{version}.yaml").write_text(text)
        changed = old.replace("version: 1", f"version: {version}").replace(
            "prompts/support.v1.md", f"prompts/brief.v{version}.yaml"
        )
        (project / f"agents/support.v{version}.yaml").write_text(changed)
    lockgate("lock")
    assert lockgate("prompts", "show", "brief", "--json")["prompt"]["path"] == "prompts/brief.v10.yaml"
    [done] = lockgate("prompts", "release", "brief@9", "--env", "dev", "--json")
    behaviour = done["version"]["behaviour_digest"]
    texts = {
        text["version"]: text["behaviour_digest"] for text in lockgate("prompts", "show", "brief", "--json")["texts"]
    }
    assert behaviour == texts["support@9"]
    listed = {one["path"]: one for one in lockgate("prompts", "list", "--json")}
    assert listed["prompts/brief.v9.yaml"]["serves_in"] == ["dev"]
    assert listed["prompts/brief.v10.yaml"]["serves_in"] == []
    assert "did you mean" in lockgate("prompts", "show", "brief@11", code=2)
