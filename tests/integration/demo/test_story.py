"""The demo on its real model: every chapter ends as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lockgate.gateway import weights

pytestmark = [pytest.mark.integration_only, pytest.mark.timeout(1500)]


def test_the_demo_tells_its_story_and_leaves_a_project_to_look_at(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    if not weights.is_here(weights.DEFAULT):
        pytest.skip(f"the weights of {weights.DEFAULT} are not in {weights.folder()}")

    told = subprocess.run(
        [sys.executable, "-m", "lockgate", "demo", "--folder", str(tmp_path / "story")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )

    assert told.returncode == 0, told.stdout[-8000:] + told.stderr[-2000:]
    assert (tmp_path / "story" / ".lockgate" / "control.db").exists()
    assert (tmp_path / "story" / "lockgate.lock").exists()
    cases = (tmp_path / "story" / "evals" / "golden" / "refund-triage.jsonl").read_text().splitlines()
    assert len(cases) == 64 + 2, "two failures have become cases"
