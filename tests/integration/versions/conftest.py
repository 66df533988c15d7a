"""A scaffolded project, and its commands called as from a shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.project.scaffold import scaffold


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the support template; the working directory is in it."""
    scaffold("acme", "support", tmp_path / "acme")
    monkeypatch.chdir(tmp_path / "acme")
    return tmp_path / "acme"


@pytest.fixture
def lockgate() -> Callable[..., Any]:
    """``lockgate("doctor", "--json", code=1)``: what it printed, read where it is JSON."""

    def call(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in arguments else result.output

    return call
