"""``lockgate schema``: the JSON Schemas of files people write, and of what programs read."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer


def schema(
    what: Annotated[
        Literal["agent", "project", "tool", "prompt", "rubric", "scorecard"],
        typer.Argument(help="Which file's; `scorecard` is what `lockgate eval --json` prints."),
    ] = "agent",
) -> None:
    """Print the JSON Schema of a Lockgate file, for editors, or of a scorecard, for programs.

    Example: lockgate schema agent > agent.schema.json
    """
    import json

    sys.stdout.write(json.dumps(schema_of(what), indent=2, ensure_ascii=False) + "\n")


def schema_of(what: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one kind of file, or of a scorecard."""
    if what != "scorecard":
        from lockgate.versions.cli import json_schema

        return json_schema(what)
    import msgspec

    from lockgate.evals.model import Scorecard

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Scorecard)}
