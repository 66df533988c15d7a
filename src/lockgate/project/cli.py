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
        steps = [f"cd {target}", f"{lockgate} lock", f"{lockgate} eval"]
        if _needs_more(target / "requirements.txt"):
            pip = "pip" if lockgate == "lockgate" else lockgate.removesuffix("lockgate") + "python -m pip"
            steps.insert(1, f"{pip} install -r requirements.txt")
        console().print(f"\nNext: {' && '.join(steps)}", markup=False, soft_wrap=True)

    emit({"folder": str(target), "files": [str(path) for path in written]}, json, draw)


def _needs_more(requirements: Path) -> bool:
    """Whether the agent's code needs packages that do not come with Lockgate."""
    lines = requirements.read_text("utf-8").splitlines()
    return any(line and not line.startswith(("#", "lockgate")) for line in lines)
