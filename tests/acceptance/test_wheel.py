"""What is not Python ships too: templates, the demo's example. And nothing ships that was only lying around."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=280)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("src/lockgate/project/templates", "lockgate/project/templates"),
        ("examples/refund-triage", "lockgate/demo/example"),
    ],
)
def test_a_wheel_has_every_file_of(source: str, target: str, shipped: set[str]) -> None:
    files = [path for path in (ROOT / source).rglob("*") if path.is_file()]
    wanted = {
        f"{target}/{path.relative_to(ROOT / source).as_posix()}"
        for path in files
        if not {"__pycache__", ".lockgate"} & set(path.parts)
    }
    assert wanted
    assert {name for name in shipped if name.startswith(f"{target}/")} == wanted


def test_a_wheel_has_no_state_and_no_tests(shipped: set[str]) -> None:
    assert {name.split("/")[0] for name in shipped if ".dist-info" not in name} == {"lockgate"}
    assert not any(".lockgate" in name or "__pycache__" in name for name in shipped)
