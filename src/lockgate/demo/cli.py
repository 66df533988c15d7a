"""``lockgate demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockgate.console import console, invocation, table


def demo(
    folder: Annotated[Path, typer.Option(help="The project folder to make.")] = Path("lockgate-demo"),
    model: Annotated[
        str | None, typer.Option(help="Another model: provider:name, or a GGUF file. Default: a small local one.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port; 0 takes a free one.")] = 0,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Leave everything up at the end.")] = False,
) -> None:
    """Watch the whole loop on a real local model, in about four minutes.

    A support agent goes through four versions: gated, stopped, rolled back, promoted. Nothing is scripted output.
    The exit code is 0 when every chapter ended as it usually does, 3 when one went differently.

    Example: lockgate demo --model ollama:llama3.1:8b
    """
    from rich.text import Text

    from lockgate.demo.screen import Screen
    from lockgate.demo.stage import Stage
    from lockgate.demo.story import Story

    screen = Screen()
    with Stage(folder.absolute(), screen, port) as stage:
        stage.make_project(model)
        _fetch_weights(model)
        screen.began_now()
        story = Story(stage, screen)
        story.tell()
        if keep_running:
            stage.leave_running()
    screen.chapter(
        "What happened", f"In {screen.seconds():.0f} seconds, on {model or 'a 0.5-billion-parameter model'}:"
    )
    rows = [
        (Text("✓", "bold green") if happened else Text("differently", "bold yellow"), outcome, at)
        for outcome, at, happened in story.outcomes
    ]
    table(("", "what", "after"), rows)
    _look_around(folder, stage.url if keep_running else None)
    if not all(happened for _, _, happened in story.outcomes):
        raise typer.Exit(3)


def _fetch_weights(model: str | None) -> None:
    """The one download, with its progress; nothing when another model is named."""
    from lockgate.gateway import local_model, weights

    if model is not None and not model.endswith(".gguf"):
        return
    local_model.check_installed()
    if model is not None or weights.is_here(weights.DEFAULT):
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    known = weights.KNOWN[weights.DEFAULT]
    out = console()
    out.print(f"Fetching {known.name} ({known.size / 1e6:.0f} MB, {known.licence}), once; kept in {weights.folder()}")
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=out) as bar:
        task = bar.add_task("looking for it", total=known.size)
        weights.find(known.name, progress=lambda what, done, total: bar.update(task, description=what, completed=done))


def _look_around(folder: Path, url: str | None) -> None:
    out = console()
    lockgate = invocation(folder)
    out.print("\nThe project, its databases and traces are yours to look at:\n")
    out.print(f"  cd {folder}", markup=False)
    for command, what in (
        ("versions list", "every version and its digest"),
        ("diff refund-triage@1 refund-triage@4", "what changed in behaviour"),
        ("report", "the last scorecard"),
        ("rollout list", "what went out, and what came back"),
        ("rollout get refund-triage --env prod", "the evidence, and the arithmetic of the decision"),
        ("runs list", "every run"),
        ("trace --last", "one run, step by step"),
        ("triage list", "failures that wait for a decision"),
        ("up", "start it all again"),
    ):
        out.print(f"  {f'{lockgate} {command}':<{len(lockgate) + 40}} # {what}", markup=False)
    if url:
        out.print(f"\nIt is still up at {url}. To stop it: pkill -f 'lockgate up'", markup=False)
