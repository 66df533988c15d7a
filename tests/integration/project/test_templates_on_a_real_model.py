"""What `lockgate init` makes, on the real local model (fetched once, about 500 MB) and with the real LangGraph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lockgate.project.scaffold import AGENTS, scaffold

pytestmark = [pytest.mark.integration_only, pytest.mark.timeout(1200)]


def lockgate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lockgate", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )


@pytest.mark.parametrize("template", ["support", "langgraph"])
def test_a_scaffolded_project_passes_its_own_gate(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    scaffold("shop", template, tmp_path / "shop")
    assert lockgate(tmp_path / "shop", "lock").returncode == 0
    done = lockgate(tmp_path / "shop", "eval", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads(done.stdout)
    assert (card["agent"], card["verdict"], card["failed_trials"]) == (AGENTS[template], "pass", 0)
    assert card["cost_nano"] > 0
