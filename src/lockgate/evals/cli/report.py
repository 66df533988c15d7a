"""``lockgate report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from lockgate.console import JsonFlag, console, emit
from lockgate.errors import InputError
from lockgate.evals.cli.contenders import last_cards, none_yet
from lockgate.evals.cli.options import Env
from lockgate.evals.cli.showing import draw


def report(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[EVALUATION|AGENT]", help="An evaluation's id, or a version; default: the last evaluation."
        ),
    ] = None,
    format: Annotated[
        Literal["text", "markdown", "json", "html", "junit", "inspect"],
        typer.Option("--format", "-f", help="How to write it; html, junit and inspect show every case."),
    ] = "markdown",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the screen.")
    ] = None,
    comment: Annotated[
        bool,
        typer.Option("--comment", help="Post it on this CI job's pull request (GitHub, GitLab), or update it there."),
    ] = False,
    env: Env = "prod",
    json: JsonFlag = False,
) -> None:
    """Write a scorecard for people or programs, or keep it as one comment on a pull request.

    Example: lockgate report --format html --output report.html
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    if which is not None and which.startswith("eval_"):
        card = app.evals.get(which)
    elif which is not None:
        card = last_cards(app, which, env)[0]
    else:
        last = app.evals.last()
        if last is None:
            raise none_yet("nothing was evaluated here")
        card = last
    from lockgate.evals.reports import files

    if comment:
        console(stderr=True).print(files.comment(card), markup=False)
    form: files.Form = "json" if json else format
    cases = files.cases_of(card, app.project.root) if form in ("html", "junit", "inspect") else []
    if output is not None:
        files.write_report(output, "markdown" if form == "text" else form, card, app.control, cases, app.project.root)
        return
    if form == "inspect":
        raise InputError("an Inspect log is no text", remedy="give --output NAME.eval")
    if comment and not json:
        return

    def render() -> None:
        if form == "text":
            draw(card)
        else:
            sys.stdout.write(files.rendered(form, card, files.views(app.control, card, cases, app.project.root)))

    emit(card, json, render)
