"""Commands as a user gives them."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from lockgate.cli import app


def call(*arguments: str, exit_code: int = 0, input: str | None = None) -> Any:
    """What a command printed, read where it is JSON."""
    shown = CliRunner().invoke(app, list(arguments), input=input)
    assert shown.exit_code == exit_code, shown.output + repr(shown.exception)
    return json.loads(shown.stdout) if "--json" in arguments and exit_code in (0, 1, 3) else shown.output
