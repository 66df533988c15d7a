"""What a command does not need, it does not import: nearly all of a command's start is imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGENT = """
agent:
  name: triage
  version: 1
  model: {provider: openai, name: gpt-4o-mini-2024-07-18}
  system_prompt: prompts/triage.md
"""
SERVERS = {"aiohttp", "fastapi", "granian"}
FOR_SOME_VERSIONS = {"cedarpy", "jsonschema_rs", "lockgate.gateway.guardrails.policy"}
ELSEWHERE = {"numpy", "genai_prices", "alembic", "cryptography", "sqlalchemy.dialects.postgresql", "http.client"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("agents", "prompts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lockgate.yaml").write_text("project: shop\n")
    (tmp_path / "agents/triage.v1.yaml").write_text(AGENT)
    (tmp_path / "prompts/triage.md").write_text("You sort mail.\n")
    return tmp_path


def imported(*arguments: str, cwd: Path | None = None) -> set[str]:
    """The modules that ``python …`` imports."""
    started = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(started, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize("command", ["versions list", "deploy triage@1 --env dev", "lock --check"])
def test_a_command_that_reads_the_project_imports_no_server_and_no_numbers(project: Path, command: str) -> None:
    imported("-m", "lockgate", "lock", cwd=project)
    assert not (SERVERS | FOR_SOME_VERSIONS | ELSEWHERE) & imported("-m", "lockgate", *command.split(), cwd=project)


def test_an_evaluation_starts_without_what_only_some_have() -> None:
    found = imported("-c", "import lockgate.evals.cli.evaluate, lockgate.evals.service, lockgate.subjects")
    late = {"rich", "lockgate.evals.judges.service", "lockgate.evals.peers", "lockgate.evals.comparing"}
    assert not (SERVERS | FOR_SOME_VERSIONS | late | ELSEWHERE - {"numpy"}) & found


def test_steering_imports_no_database_before_it_has_asked_the_control_plane() -> None:
    found = imported("-c", "import lockgate.rollouts.cli, lockgate.handover, lockgate.rollouts.verbs")
    assert not {"sqlalchemy", "ruamel.yaml", "numpy", "rich", "asyncio"} & found
