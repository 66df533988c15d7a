"""``lockgate compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag
from lockgate.errors import InputError
from lockgate.evals.cli.contenders import contender, golden_of, none_yet, rubric_of
from lockgate.evals.cli.options import Concurrency, Dataset, Env, Judge, MarkdownFile, Threshold, Trials
from lockgate.evals.cli.running import evaluated
from lockgate.evals.cli.showing import leave, show, write_reports
from lockgate.evals.cli.stopping import stoppable

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import Rubric, Scorecard
    from lockgate.evals.service import Contender, GoldenSet


@stoppable()
def compare(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A", help="What to compare with: AGENT@2, a digest, an agent file, EVALUATION or SCORECARD.json."
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="What is judged, named in the same ways.")],
    dataset: Dataset = None,
    judge: Judge = None,
    threshold: Threshold = None,
    trials: Trials = None,
    env: Env = "prod",
    concurrency: Concurrency = None,
    markdown: MarkdownFile = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write an HTML report with every case.")] = None,
    json: JsonFlag = False,
) -> None:
    """Compare two versions, or two evaluations, case by case: by the second one's rubric.

    Versions are run where the golden set was not run whole before. Evaluations are named by id or by the JSON of their
    scorecards, and nothing is run; paired where what they saw is stored here. Exit codes are those of `lockgate eval`;
    nothing is attested.

    Example: lockgate compare refund-triage@2 agents/refund-triage.v3.yaml
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    cards = [_stored(app, before), _stored(app, after)]
    if cards == [None, None]:
        card = _versions(app, before, after, env, dataset, judge, threshold, trials, concurrency)
    else:
        for option, given in (
            ("--dataset", dataset),
            ("--judge", judge),
            ("--threshold", threshold),
            ("--trials", trials),
        ):
            if given is not None:
                raise InputError(f"{option} is for versions, and evaluations are compared as they are")
        first, second = (found or _last(app, ref, env) for found, ref in zip(cards, (before, after), strict=True))
        card = app.evals.compare_cards(first, second)
    write_reports(app, card, {"html": html}, False, many=False)
    show(card, json, markdown)
    leave(card)


def _versions(
    app: App,
    before: str,
    after: str,
    env: str,
    dataset: Path | None,
    judge: str | None,
    threshold: list[str] | None,
    trials: int | None,
    concurrency: int | None,
) -> Scorecard:
    candidate, other = contender(app, after, env), contender(app, before, env)
    rubric = rubric_of(app, candidate, judge=judge, threshold=threshold, trials=trials, concurrency=concurrency)
    golden = golden_of(app, dataset, rubric, candidate)
    first, second = (_whole_run(app, one, rubric, golden) for one in (other, candidate))
    if first is not None and second is not None:
        return app.evals.compare_cards(first, second)
    return evaluated(app, candidate, rubric, golden, env, other, kind="compare")


def _whole_run(app: App, version: Contender, rubric: Rubric, golden: GoldenSet) -> Scorecard | None:
    return app.evals.whole_run(version.effective_digest, golden.cases, rubric)


def _stored(app: App, ref: str) -> Scorecard | None:
    """An evaluation by id, or its scorecard from a file; None for what names a version."""
    if ref.startswith("eval_"):
        return app.evals.get(ref)
    if not ref.endswith(".json"):
        return None
    import msgspec

    from lockgate.evals.model import Scorecard

    try:
        return msgspec.json.decode(Path(ref).read_bytes(), type=Scorecard)
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=ref, remedy="correct the path") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as failure:
        raise InputError(
            f"is no scorecard: {failure}", path=ref, remedy="write one with `lockgate report --format json`"
        ) from None


def _last(app: App, ref: str, env: str) -> Scorecard:
    version = contender(app, ref, env)
    found = app.evals.last(version.effective_digest)
    if found is None:
        raise none_yet(f"{version.label} was not evaluated for {env!r} yet")
    return found
