"""``lockgate compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from lockgate.console import JsonFlag
from lockgate.evals.cli.contenders import contender, golden_of, rubric_of
from lockgate.evals.cli.options import Concurrency, Dataset, Env, Judge, MarkdownFile, Threshold, Trials
from lockgate.evals.cli.running import evaluated
from lockgate.evals.cli.showing import leave, show


def compare(
    before: Annotated[
        str, typer.Argument(metavar="A", help="The version to compare with: AGENT@2, a digest or an agent file.")
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="The version that is judged.")],
    dataset: Dataset = None,
    judge: Judge = None,
    threshold: Threshold = None,
    trials: Trials = None,
    env: Env = "prod",
    concurrency: Concurrency = None,
    markdown: MarkdownFile = None,
    json: JsonFlag = False,
) -> None:
    """Compare two versions case by case, by the second one's rubric.

    Exit codes are those of `lockgate eval`; nothing is attested.

    Example: lockgate compare refund-triage@2 agents/refund-triage.v3.yaml
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    candidate, other = contender(app, after, env), contender(app, before, env)
    rubric = rubric_of(app, candidate, judge=judge, threshold=threshold, trials=trials, concurrency=concurrency)
    card = evaluated(app, candidate, rubric, golden_of(app, dataset, rubric, candidate), env, other, kind="compare")
    show(card, json, markdown)
    leave(card)
