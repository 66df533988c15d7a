"""What commands tell people to type next works where they stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lockgate.console import invocation


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    command = tmp_path / "checkout/.venv/bin/lockgate"
    command.parent.mkdir(parents=True)
    command.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(command), "init", "x"])
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path / "checkout")
    return command


def test_a_command_that_path_lacks_is_named_by_its_way_from_the_folder(installed: Path) -> None:
    assert invocation(Path("x")) == "../.venv/bin/lockgate"


def test_a_command_called_by_a_relative_path_is_found_from_the_folder(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/lockgate"])
    assert invocation(Path("x/y")) == "../../.venv/bin/lockgate"


def test_a_command_on_path_is_called_by_its_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(installed.parent))
    assert invocation(Path("x")) == "lockgate"


def test_run_as_a_module_it_is_called_by_its_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/elsewhere/lockgate/__main__.py"])
    assert invocation(Path("x")) == "lockgate"
