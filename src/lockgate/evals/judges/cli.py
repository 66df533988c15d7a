"""``lockgate judge``: hold a judge against people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, emit, group, table
from lockgate.errors import InputError
from lockgate.evals.cli.stopping import awaited, stoppable

if TYPE_CHECKING:
    from lockgate.evals.judges.calibration import Calibration

judge = group("Hold a judge against people's labels.\n\nExample: lockgate judge list")


@judge.command()
@stoppable("interrupted: nothing is stored, the last calibration stands")
def calibrate(
    metric: Annotated[str, typer.Option("--metric", help="The judged metric.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="People's grades: JSONL with input, output and label; default: those of `annotate`."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--judge", help="PROVIDER:NAME; default: the agent's judge.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", "-a", help="Take metric and judge from its rubric.")] = None,
    env: Annotated[str, typer.Option("--env", "-e", help="The environment whose providers answer.")] = "prod",
    max_usd: Annotated[
        float | None, typer.Option("--max-usd", min=0, help="Spend no more; default: the agent's evals.max_usd.")
    ] = None,
    pairs: Annotated[
        int, typer.Option("--pairs", min=0, max=1000, help="Pairs of answers to compare in both orders.")
    ] = 20,
    json: JsonFlag = False,
) -> None:
    """Ask the judge what people were asked, and store how far it agrees: 0 when it may block a release, else 1.

    Without --labels the grades are those that `lockgate annotate` took. Pairs of answers to one input are compared in
    both orders, which shows a bias by position.

    Example: lockgate judge calibrate --labels labels.jsonl --metric helpfulness --judge ollama:llama3.1:70b
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.judges.labels import read_labels
    from lockgate.evals.rubric import judge_named, needs_judge, parse_rubric

    app = open_app()
    root = app.project.root
    block: dict[str, Any] = {"thresholds": {metric: 0.5}}
    name = None
    if agent is not None:
        digest = app.versions.find(agent)
        block, name = dict(app.versions.settings(digest).evals), app.versions.load(digest).agent
    rubric = parse_rubric(block, root)
    found = rubric.metric(metric)
    if found is None or metric not in needs_judge(rubric):
        raise InputError(f"{metric!r} is no metric that a judge scores", remedy="lockgate scorers")
    settings = judge_named(model) if model else rubric.judge
    if settings is None:
        raise InputError("no judge is named", remedy="give --judge PROVIDER:NAME, or --agent with one in its rubric")
    given = app.annotations.labels(found, agent=name) if labels is None else read_labels(labels, metric)
    limit = rubric.max_usd if max_usd is None else max_usd

    async def run() -> Calibration:
        async with app.judge(settings, env) as ask:
            return await app.judges.calibrate(
                settings, found, given, ask, root, max_usd=limit, pairs=pairs, agent=name or ""
            )

    record = awaited(run())
    emit(record, json, lambda: _draw([record]))
    if not record.good:
        raise typer.Exit(1)


@judge.command("list")
def list_command(json: JsonFlag = False) -> None:
    """List calibrations, the newest first.

    Example: lockgate judge list
    """
    from lockgate.bootstrap import open_app

    found = open_app().judges.list()
    emit(found, json, lambda: _draw(found))


@judge.command()
def export(
    to: Annotated[Path, typer.Option("--to", help="The file, JSONL; commit it, so that CI knows the judges too.")],
    json: JsonFlag = False,
) -> None:
    """Write the newest calibration of each judge, for another machine's `judge import`.

    Example: lockgate judge export --to evals/calibrations.jsonl
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.cli.files import write_lines

    found = open_app().judges.export()
    if not found:
        raise InputError("no judge was calibrated here", remedy="lockgate judge calibrate")
    write_lines(to, found)
    data = {"calibrations": len(found), "to": str(to)}
    emit(data, json, lambda: console().print(f"{len(found)} calibrations written to {to}", markup=False))


@judge.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `judge export` wrote.")], json: JsonFlag = False
) -> None:
    """Take calibrations of another machine, each for exactly the judge it is of; older ones stay out.

    Example: lockgate judge import evals/calibrations.jsonl
    """
    import msgspec

    from lockgate.bootstrap import open_app
    from lockgate.evals.judges.calibration import Calibration

    found = []
    try:
        lines = file.read_bytes().splitlines()
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=file, remedy="correct the path") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=Calibration))
            except msgspec.DecodeError as wrong:
                raise InputError(
                    f"no calibration: {wrong}", path=file, line=number, remedy="write it with judge export"
                ) from None
    taken = open_app().judges.take(found)
    data = {"read": len(found), "taken": taken}
    emit(data, json, lambda: console().print(f"{taken} of {len(found)} calibrations taken", markup=False))


def _draw(found: list[Calibration]) -> None:
    def show(value: float | None) -> str:
        return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"  # no "-0.00"

    columns = (
        *("judge", "metric", "labels", "unscored", "κ", "people's κ", "sensitivity", "specificity"),
        *("bias", "by length", "by position", ""),
    )
    table(
        columns,
        [
            (
                one.model,
                one.metric,
                one.labels,
                one.unscored,
                show(one.kappa),
                show(one.human_kappa),
                show(one.sensitivity),
                show(one.specificity),
                f"{one.mean_error:+.2f}" if one.labels > one.unscored else "–",
                show(one.length_bias),
                _position(one),
                "calibrated" if one.good else f"not calibrated: {one.why_not}",
            )
            for one in found
        ],
    )


def _position(one: Calibration) -> str:
    if one.position_bias is None or one.first_bias is None:
        return "–"
    place = "" if not one.first_bias else f", the {'first' if one.first_bias > 0 else 'second'} place is liked better"
    return f"{one.position_bias:.0%} of {one.position_pairs} change with the order{place}"
