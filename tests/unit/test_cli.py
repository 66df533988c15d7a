"""The root command: light, complete, and clear when it is misused."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lockgate.cli import COMMANDS, app
from lockgate.storage.engine import open_database

runner = CliRunner()

HEAVY = ("sqlalchemy", "numpy", "granian", "fastapi", "aiohttp", "pyreqwest", "cedarpy", "genai_prices", "alembic")


def test_help_lists_every_command() -> None:
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(f"  {name} " in shown.output for name in COMMANDS)


def test_help_imports_no_server_no_database_and_no_numeric_library() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom lockgate.cli import app\n"
        "CliRunner().invoke(app, ['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says(name: str) -> None:
    entry = COMMANDS[name]
    target = getattr(importlib.import_module(entry.module), entry.attribute)
    assert isinstance(target, typer.Typer) or callable(target)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str) -> None:
    shown = runner.invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert f"lockgate {name}" in shown.output.split("Options:")[0].split("Usage:", 1)[1].split("\n", 1)[1]
    assert "completion" not in shown.output  # typer's own options, which a command of a group has no use for


def test_an_unknown_command_is_a_usage_error() -> None:
    shown = runner.invoke(app, ["nope"])
    assert shown.exit_code == 2
    assert "nope" in shown.output


def test_the_version_is_printed() -> None:
    assert runner.invoke(app, ["--version"]).output.startswith("lockgate 0.")


def test_a_database_that_fails_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "lockgate.yaml").write_text("project: p\n")
    home = tmp_path / ".lockgate"
    home.mkdir()
    control = open_database(home / "control.db", "control")
    with control.write() as connection:
        connection.exec_driver_sql("drop table ledger")
    control.close()
    command = [sys.executable, "-m", "lockgate", "budgets"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "the database does not answer: no such table: ledger" in done.stderr
    assert "Traceback" not in done.stderr
