"""``lockgate init``: a project that locks and evaluates as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockgate.console import JsonFlag, console, emit, invocation


def init(
    name: Annotated[str, typer.Argument(help="The project's name; a folder of that name is made.")],
    template: Annotated[str, typer.Option(help="What to start from: support, rag, python or langgraph.")] = "support",
    folder: Annotated[Path | None, typer.Option(help="Where to put it; default: ./NAME.")] = None,
    ci: Annotated[str, typer.Option("--ci", help="Whose workflow to write: github, gitlab or none.")] = "github",
    json: JsonFlag = False,
) -> None:
    """Scaffold a project: agent, prompt, schema, golden set, rubric, policy, tests, CI workflow.

    Example: lockgate init my-support --template support
    """
    from lockgate.project.scaffold import scaffold

    target = folder or Path(name)
    written = scaffold(name, template, target, ci=ci)

    def draw() -> None:
        for path in written:
            console().print(f"  {path}", markup=False)
        lockgate = invocation(target)
        console().print(f"\nNext: cd {target} && {lockgate} lock && {lockgate} eval", markup=False)

    emit({"folder": str(target), "files": [str(path) for path in written]}, json, draw)
