"""`lockgate doctor` and `lockgate owners` on a project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lockgate = Callable[..., Any]


def kinds(notes: list[dict[str, Any]], severity: str = "problem") -> set[str]:
    return {note["kind"] for note in notes if note["severity"] == severity}


def test_what_is_not_locked_is_a_problem_that_fix_repairs(project: Path, lockgate: Lockgate) -> None:
    assert kinds(lockgate("doctor", "--offline", "--json", code=1)) == {"lock"}
    fixed = lockgate("doctor", "--offline", "--fix", "--json")
    assert fixed["done"] == ["wrote lockgate.lock"]
    assert kinds(fixed["findings"]) == set()
    assert lockgate("lock", "--check")


def test_fix_keeps_state_out_of_git(project: Path, lockgate: Lockgate) -> None:
    (project / ".git").mkdir()
    (project / ".gitignore").write_text("*.pyc")
    lockgate("lock")
    assert kinds(lockgate("doctor", "--offline", "--json", code=1)) == {"project"}
    lockgate("doctor", "--offline", "--fix")
    assert (project / ".gitignore").read_text() == "*.pyc\n.lockgate/\n"


def test_one_broken_file_hides_nothing_else(project: Path, lockgate: Lockgate) -> None:
    lockgate("lock")
    (project / "agents/broken.v1.yaml").write_text("agent: 3\n")
    (project / "prompts/leak.md").write_text("key AKIA" + "ABCDEFGH12345678\n")
    notes = lockgate("doctor", "--offline", "--json", code=1)
    assert {"project", "secret"} <= kinds(notes)
    where = {(note["path"], note["line"]) for note in notes if note["severity"] == "problem"}
    assert {("agents/broken.v1.yaml", 1), ("prompts/leak.md", 1)} <= where
    assert "AKIA" not in json.dumps(notes)


def test_an_unreachable_provider_and_a_retired_model_are_named(project: Path, lockgate: Lockgate) -> None:
    text = (project / "lockgate.yaml").read_text()
    (project / "lockgate.yaml").write_text(
        text.replace("providers:\n", "providers:\n  far: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}\n", 1)
        + "deprecations: ends.yaml\n"
    )
    (project / "ends.yaml").write_text("models:\n  old-model-2020-01-01: {retires: 2021-01-01, replacement: newer}\n")
    agent = next((project / "agents").glob("*.yaml"))
    lines = agent.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if "provider:" in line)
    lines[number] = "  model: {provider: far, name: old-model-2020-01-01}"
    del lines[number + 1 : next(n for n in range(number + 1, len(lines)) if not lines[n].startswith("    "))]
    if lines[number - 1].strip() == "model:":
        del lines[number - 1]
    agent.write_text("\n".join(lines) + "\n")
    lockgate("lock")
    notes = lockgate("doctor", "--json", code=1)
    assert "retirement" in kinds(notes)
    assert any("does not answer" in note["message"] for note in notes)


def test_owners_say_where_they_are_stated(project: Path, lockgate: Lockgate) -> None:
    found = {(one["kind"], one["owner"], one["stated"].split(":")[0]) for one in lockgate("owners", "--json")}
    assert ("prompt", "@acme/agents", "CODEOWNERS") in found
    (project / "CODEOWNERS").write_text("/agents/ @a\n/prompts/\n")
    config = project / "lockgate.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("owner:")))
    nobody = {one["kind"] for one in lockgate("owners", "--json", code=1) if one["owner"] is None}
    assert nobody == {"prompt", "tool"}
    lockgate("lock")
    assert "owner" in kinds(lockgate("doctor", "--offline", "--json"), "advice")


def test_reproducibility_rises_with_what_is_locked_and_says_what_is_next(project: Path, lockgate: Lockgate) -> None:
    nothing = lockgate("doctor", "--reproducibility", "--json")
    assert nothing["percent"] == 0
    assert nothing["next"]["remedy"] == "lockgate lock"
    lockgate("lock")
    locked = lockgate("doctor", "--reproducibility", "--json")
    assert 50 < locked["percent"] < 100
    assert "git commit" in {part["name"] for part in locked["parts"] if part["missing"]}
    shown = lockgate("doctor", "--reproducibility")
    assert "█" in shown
    assert "Lock next:" in shown


def test_a_half_written_index_is_repaired_before_what_writes_to_it(project: Path, lockgate: Lockgate) -> None:
    lockgate("lock")
    (project / "lockgate.lock").unlink()
    (project / ".lockgate/index.json").write_text('{"manifests": [')
    assert "not an OCI index" in lockgate("lock", code=4)
    assert kinds(lockgate("doctor", "--offline", "--json", code=1)) == {"layout", "lock"}
    assert "with 2 manifests" in lockgate("doctor", "--offline", "--fix", "--json")["done"][0]
    assert "0 problems" in lockgate("versions", "verify")
