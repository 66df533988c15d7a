"""`lockgate init`: what it makes locks, tests and evaluates as it stands."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.project.scaffold import AGENTS
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest

runner = CliRunner()
RUNNABLE = [name for name in AGENTS if name != "langgraph" or importlib.util.find_spec("langgraph")]
"""Templates whose agent can run with what is installed."""

every_template = pytest.mark.parametrize("template", AGENTS)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)

    def make(template: str) -> Path:
        result = runner.invoke(app, ["init", "shop", "--template", template, "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["folder"] == "shop"
        monkeypatch.chdir(tmp_path / "shop")
        return tmp_path / "shop"

    return make


def errors(result: Any) -> str:
    return " ".join(result.stderr.split())


@every_template
def test_a_scaffolded_project_locks(template: str, made: Any) -> None:
    folder = made(template)
    result = runner.invoke(app, ["lock", "--json"])
    assert result.exit_code == 0, result.output
    assert re.search("owner|approval|pin|contract|secret", json.dumps(json.loads(result.stdout)["warnings"])) is None
    assert runner.invoke(app, ["lock", "--check"]).exit_code == 0
    assert AGENTS[template] in (folder / "lockgate.lock").read_text()


@every_template
def test_the_tests_of_a_scaffolded_project_pass_on_a_scripted_model(template: str, made: Any) -> None:
    folder = made(template)
    where = ["tests"] if template in RUNNABLE else ["tests/unit"]
    options = [
        "--mock-llm",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "-p",
        "no:xdist",
        "-p",
        "no:hypothesispytest",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "LOCKGATE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *where, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


def right(template: str) -> Callable[[ModelRequest], Any]:
    """A model that answers the golden set as it should."""
    lines = Path(f"evals/golden/{AGENTS[template]}.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]

    def answer(request: ModelRequest) -> Any:
        wanted = next(case["expected_output"] for case in cases if case["input"] in request.last_user)
        match template:
            case "support":
                return {"order": wanted["order"], "wants": "status" if wanted["decision"] == "inform" else "refund"}
            case "rag":
                return {"answer": ", ".join(wanted)}
            case "python":
                return {"topic": wanted["topic"]}
            case _:
                return {"answer": wanted["answer"]}

    return answer


def wrong(template: str) -> Any:
    """An answer that is valid, and never what is wanted."""
    return {"support": {"order": "1", "wants": "other"}, "python": {"topic": "nonsense"}}.get(
        template, {"answer": "It is 77."}
    )


@pytest.fixture
def answered(made: Any) -> Iterator[Callable[..., Path]]:
    """A locked project whose local model is a fake one."""
    with ExitStack() as stack:

        def make(template: str, *, quality: str = "right") -> Path:
            folder: Path = made(template)
            responses = right(template) if quality == "right" else wrong(template)
            server = stack.enter_context(FakeModelServer(responses))
            config = (folder / "lockgate.yaml").read_text()
            local = "local: {kind: local, weights: qwen2.5-coder-0.5b-instruct}"
            assert local in config
            fake = f"local: {{kind: openai, base_url: '{server.base_url}'}}"
            (folder / "lockgate.yaml").write_text(config.replace(local, fake))
            assert runner.invoke(app, ["lock"]).exit_code == 0
            return folder

        yield make


@pytest.mark.parametrize("quality", ["right", "wrong"])
@pytest.mark.parametrize("template", RUNNABLE)
def test_the_gate_of_a_scaffolded_project_tells_right_from_wrong(template: str, quality: str, answered: Any) -> None:
    answered(template, quality=quality)
    result = runner.invoke(app, ["eval", "--agent", AGENTS[template], "--json"])
    card = json.loads(result.stdout)
    assert (result.exit_code, card["verdict"]) == ((0, "pass") if quality == "right" else (1, "fail")), card["reasons"]
    assert card["failed_trials"] == 0
    assert runner.invoke(app, ["cost-gate", "--agent", AGENTS[template], "--max-per-run", "0.05"]).exit_code == 0


def test_tools_find_their_files_wherever_the_gate_is_run_from(answered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = answered("python")
    monkeypatch.chdir(folder / "tests")
    result = runner.invoke(app, ["eval", "--json", "--markdown", "scorecard.md"])
    card = json.loads(result.stdout)
    assert (result.exit_code, card["failed_trials"]) == (0, 0), card["failures"]
    assert (folder / "tests" / "scorecard.md").exists()


def test_a_file_that_exists_is_one_error_and_nothing_is_written(made: Any, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "README.md").write_text("mine")
    result = runner.invoke(app, ["init", "shop"])
    assert result.exit_code == 2
    assert "shop/README.md" in errors(result)
    assert "nothing was written" in errors(result)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["README.md"]


@pytest.mark.parametrize(("arguments", "said"), [(["a b"], "'a b'"), (["shop", "--template", "suport"], "'support'")])
def test_a_wrong_argument_is_one_error(arguments: list[str], said: str, made: Any, tmp_path: Path) -> None:
    result = runner.invoke(app, ["init", *arguments])
    assert result.exit_code == 2
    assert said in errors(result)
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_to_do_next(made: Any, tmp_path: Path) -> None:
    result = runner.invoke(app, ["init", "shop", "--folder", "elsewhere"])
    assert "cd elsewhere && lockgate lock && lockgate eval" in result.stdout
    assert (tmp_path / "elsewhere" / "lockgate.yaml").exists()
