"""Shows scorecards, writes the reports asked for, and leaves with the verdict's exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from lockgate.console import console, emit
from lockgate.evals.cli.files import write
from lockgate.evals.cli.options import EXIT

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import Scorecard


def show(card: Scorecard, json: bool, markdown: Path | None) -> None:
    if markdown is not None:
        write(markdown, markdown_of(card))
    emit(card, json, lambda: draw(card))


def write_reports(app: App, card: Scorecard, wanted: dict[str, Path | None], comment: bool, *, many: bool) -> None:
    """The reports asked for beside the scorecard; with several agents each file's name ends with its agent."""
    if not comment and not any(wanted.values()):
        return
    from lockgate.evals.reports import files

    cases = files.cases_of(card, app.project.root) if any(wanted.values()) else []
    for form, path in wanted.items():
        if path is not None:
            named = path.with_stem(f"{path.stem}-{card.agent}") if many else path
            files.write_report(named, cast("files.Form", form), card, app.control, cases, app.project.root)
    if comment:
        console(stderr=True).print(files.comment(card), markup=False)


def draw_all(cards: Sequence[Scorecard]) -> None:
    for card in cards:
        draw(card)


def draw(card: Scorecard) -> None:
    from lockgate.evals.reports.terminal import draw

    draw(card, console())


def markdown_of(card: Scorecard) -> str:
    from lockgate.evals.reports.markdown import markdown

    return markdown(card)


def leave(card: Scorecard) -> None:
    """End with the verdict's exit code, whatever a trial that would not end is still doing."""
    code = EXIT[card.verdict]
    if card.left_behind:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
