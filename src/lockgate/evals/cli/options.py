"""Options that several commands take, and the exit codes of verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT = {"pass": 0, "fail": 1, "inconclusive": 3}

Env = Annotated[
    str,
    typer.Option(
        "--env", "-e", help="The environment whose providers answer and whose stable version is the baseline."
    ),
]
Dataset = Annotated[Path | None, typer.Option("--dataset", help="The golden set, JSONL; default: the agent file's.")]
Judge = Annotated[
    str | None, typer.Option("--judge", help="The judge's model, PROVIDER:NAME; default: the agent file's.")
]
Threshold = Annotated[
    list[str] | None, typer.Option("--threshold", help="METRIC=NUMBER[,…]: over the agent file's thresholds.")
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, max=100, help="Times each case is run.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, max=1000, help="Trials at a time.")]
MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", help="Also write the scorecard to this file, as Markdown.")
]
Whole = Annotated[bool, typer.Option("--whole", help="Run every trial, also when the verdict is settled by fewer.")]
