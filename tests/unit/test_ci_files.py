"""What runs Lockgate on CI servers, shipped in this repository: the GitHub Action and the GitLab component."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from lockgate.evals.cli.evaluate import eval_command

ROOT = Path(__file__).parents[2]


def component() -> tuple[dict[str, Any], dict[str, Any], str]:
    text = (ROOT / "templates/eval-gate.yml").read_text()
    spec, jobs = YAML(typ="safe").load_all(text)
    return spec["spec"]["inputs"], jobs, text


def options_of(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word.startswith("--")]


def known_options() -> set[str]:
    alone = typer.Typer()
    alone.command()(eval_command)
    return {name for parameter in typer.main.get_command(alone).params for name in parameter.opts}


def test_every_input_of_the_gitlab_component_is_used_and_has_a_default() -> None:
    inputs, _, text = component()
    assert set(re.findall(r"\$\[\[ inputs\.(\w+) \]\]", text)) == set(inputs)
    assert all("default" in one and one["description"] for one in inputs.values())


def test_the_gitlab_job_evaluates_comments_and_keeps_its_reports_whatever_the_verdict() -> None:
    _, jobs, _ = component()
    (job,) = jobs.values()
    script = [re.sub(r"\$\[\[ inputs\.\w+ \]\]", "", line) for line in job["script"]]
    command = next(line for line in script if line.startswith("lockgate eval"))
    assert {"--markdown", "--html", "--junit", "--log"} <= set(options_of(command))
    assert "$COMMENT" in command
    assert any("--comment" in line and "CI_MERGE_REQUEST_IID" in line for line in script)
    assert job["artifacts"]["when"] == "always"
    assert "junit" in job["artifacts"]["reports"]


@pytest.mark.parametrize("file", ["action.yml", "templates/eval-gate.yml"])
def test_every_option_they_give_is_one_of_the_command(file: str) -> None:
    text = (ROOT / file).read_text()
    given = set(re.findall(r"(?<=\s)(--(?:markdown|html|junit|log|comment)\b)", text))
    assert len(given) >= 4
    assert given <= known_options()


def test_the_action_runs_the_gate_and_keeps_its_reports_whatever_the_verdict() -> None:
    action = YAML(typ="safe").load((ROOT / "action.yml").read_text())
    steps = action["runs"]["steps"]
    assert any("lockgate eval" in str(step.get("run")) for step in steps)
    assert [step["if"] for step in steps[-2:]] == ["always()", "always()"]
    used = set(re.findall(r"\$\{\{ inputs\.([\w-]+) ", (ROOT / "action.yml").read_text()))
    assert used == set(action["inputs"])
