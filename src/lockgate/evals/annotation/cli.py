"""``lockgate annotate``: people grade answers, for judges to be held against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lockgate.console import JsonFlag, Who, console, emit, group, table, user
from lockgate.errors import InputError

if TYPE_CHECKING:
    from lockgate.evals.annotation.model import Item, Queue
    from lockgate.evals.annotation.service import Annotations

annotate = group("Grade answers, for judges to be held against.\n\nExample: lockgate annotate list")

Agent = Annotated[str | None, typer.Option("--agent", "-a", help="Only this agent's answers.")]
Metric = Annotated[str | None, typer.Option("--metric", help="Only this metric.")]
Note = Annotated[str, typer.Option("--note", help="Why; it is kept with the grade.")]
GRADES = "yes, partly, no, or a number from 0 to 1"


@annotate.command()
def sample(
    agent: Annotated[str, typer.Option("--agent", "-a", help="AGENT, AGENT@3 or an agent file.")],
    metric: Annotated[str, typer.Option("--metric", help="A judged metric of its rubric.")],
    source: Annotated[
        Literal["trials", "runs"], typer.Option("--from", help="Stored trials of the golden set, or users' runs.")
    ] = "trials",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=5000, help="Answers to draw.")] = 50,
    double: Annotated[float, typer.Option("--double", min=0, max=1, help="Share that two people are to grade.")] = 0.2,
    env: Annotated[str, typer.Option("--env", "-e", help="The environment of the runs.")] = "prod",
    days: Annotated[float, typer.Option("--days", min=0, help="How far back runs may lie.")] = 30.0,
    seed: Annotated[str, typer.Option("--seed", help="Another text draws others.")] = "",
    json: JsonFlag = False,
) -> None:
    """Draw answers for people to grade: in turn from those the judge likes, dislikes and has not seen, by tag.

    Example: lockgate annotate sample --agent support --metric helpfulness --count 60
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.golden import read_cases
    from lockgate.evals.rubric import needs_judge, parse_rubric
    from lockgate.evals.running.scoring import prepare

    app = open_app()
    digest = app.versions.find(agent)
    version = app.versions.load(digest)
    rubric = parse_rubric(app.versions.settings(digest).evals, app.project.root, where=f"{version.agent}: evals")
    found = rubric.metric(metric)
    if found is None or metric not in needs_judge(rubric):
        known = ", ".join(needs_judge(rubric)) or "none"
        raise InputError(f"{metric!r} is no judged metric of {version.agent!r}", remedy=f"its judged metrics: {known}")
    if source == "runs":
        items = app.annotations.draw_runs(
            version.agent, found, env, app.run_result, count, days=days, double=double, seed=seed
        )
    else:
        if rubric.dataset is None:
            raise InputError(f"agent {version.agent!r} names no golden set", remedy="add evals.dataset, or --from runs")
        cases = read_cases(app.project.root / rubric.dataset, shown_as=rubric.dataset)
        of_metric = next(
            one.digest
            for one in prepare(rubric, lambda _: lambda sample: None)  # type: ignore[arg-type,return-value]
            if one.metric.name == metric
        )
        items = app.annotations.draw_trials(
            version.agent, found, cases, of_metric, count, double=double, seed=seed, root=app.project.root
        )
    kinds: dict[str, int] = {}
    for item in items:
        kinds[item.stratum] = kinds.get(item.stratum, 0) + 1
    data = {"drawn": len(items), "doubly": sum(item.wanted > 1 for item in items), "strata": kinds}

    def render() -> None:
        table(("stratum", "answers"), sorted(kinds.items()))
        console().print(
            f"{len(items)} answers wait, {data['doubly']} of them for two people: lockgate annotate label",
            markup=False,
        )

    emit(data, json, render)


@annotate.command("list")
def list_command(agent: Agent = None, metric: Metric = None, json: JsonFlag = False) -> None:
    """List what waits, by agent and metric, and how far people agree with one another.

    Example: lockgate annotate list
    """
    found = _open().queues(agent=agent, metric=metric)
    emit(found, json, lambda: _draw_queues(found))


@annotate.command("next")
def next_command(agent: Agent = None, metric: Metric = None, who: Who = "", json: JsonFlag = False) -> None:
    """Show the next answer that needs your grade.

    Example: lockgate annotate next --as ana
    """
    waiting = _open().waiting(who or user(), agent=agent, metric=metric)
    data = {"waiting": len(waiting), "answer": waiting[0] if waiting else None}

    def render() -> None:
        if not waiting:
            console().print("nothing waits for your grade", markup=False)
            return
        _draw_item(waiting[0], len(waiting))
        console().print(f"\nlockgate annotate label {waiting[0].id} yes|partly|no", markup=False)

    emit(data, json, render)


@annotate.command()
def label(
    answer: Annotated[str, typer.Argument(help="The answer's id; without one, all that wait are asked about.")] = "",
    grade: Annotated[str, typer.Argument(help=f"{GRADES}; or unsure.")] = "",
    note: Note = "",
    agent: Agent = None,
    metric: Metric = None,
    who: Who = "",
    json: JsonFlag = False,
) -> None:
    """Grade one answer, or go through all that wait for your grade.

    The question says what yes means. Your grade of an answer takes the place of your earlier one.

    Example: lockgate annotate label answer_01k… partly --note "one of the two steps is missing"
    """
    service, person = _open(), who or user()
    if answer:
        found = service.grade(answer, person, _value(grade), note)
        emit(found, json, lambda: console().print(f"kept: {grade} by {person}", markup=False))
        return
    if grade or json:
        raise InputError("no answer is named", remedy="lockgate annotate next shows one")
    done = 0
    waiting = service.waiting(person, agent=agent, metric=metric)
    for place, item in enumerate(waiting):
        _draw_item(item, len(waiting) - place)
        while True:
            said = typer.prompt(f"\n{GRADES}, unsure, or stop")
            if said.strip().lower() in ("stop", "quit", "q"):
                console().print(f"{done} graded; {len(waiting) - done} wait", markup=False)
                return
            try:
                value = _value(said)
            except InputError as wrong:
                console(stderr=True).print(wrong.message, markup=False)
                continue
            service.grade(item.id, person, value)
            done += 1
            break
    console().print(f"{done} graded; nothing more waits for you", markup=False)


@annotate.command()
def export(
    to: Annotated[Path, typer.Option("--to", help="The file of labels, JSONL.")],
    agent: Agent = None,
    metric: Metric = None,
    json: JsonFlag = False,
) -> None:
    """Write the grades, a line each, with who and when; `lockgate judge calibrate --labels` reads them.

    Example: lockgate annotate export --metric helpfulness --to labels.jsonl
    """
    from lockgate.evals.cli.files import write_lines

    lines = _open().lines(agent=agent, metric=metric)
    if not lines:
        raise InputError("nobody has graded an answer yet", remedy="lockgate annotate label")
    write_lines(to, lines)
    data = {"labels": len(lines), "to": str(to)}
    emit(data, json, lambda: console().print(f"{len(lines)} labels written to {to}", markup=False))


def _open() -> Annotations:
    from lockgate.bootstrap import open_app

    return open_app().annotations


def _value(said: str) -> float | None:
    from lockgate.evals.judges.labels import grade

    word = said.strip().lower()
    if word in ("unsure", "skip", "?"):
        return None
    value = grade(word)
    if value is None:
        raise InputError(f"{said!r} is no grade", remedy=f"{GRADES}; or unsure")
    return value


def _draw_queues(found: list[Queue]) -> None:
    if not found:
        console().print("nothing was drawn yet: lockgate annotate sample", markup=False)
        return
    columns = ("agent", "metric", "answers", "graded", "grades", "people", "by two", "people agree", "κ")
    table(
        columns,
        [
            (
                one.agent,
                one.metric,
                one.answers,
                one.graded,
                one.grades,
                ", ".join(one.annotators),
                one.doubly,
                "–" if one.agreement is None else f"{one.agreement:.0%}",
                "–" if one.kappa is None else f"{one.kappa:.2f}",
            )
            for one in found
        ],
    )


def _draw_item(item: Item, left: int) -> None:
    from lockgate.evals.scorers.sample import as_text, input_text

    case, result = item.sample.case, item.sample.result
    parts: list[tuple[str, Any]] = [("input", input_text(case.input))]
    parts += [(f"source {place}", text) for place, text in enumerate(case.contexts or (), 1)]
    for call in result.tools_used:
        parts.append((f"tool {call.name}", f"{as_text(call.arguments)} → {call.error or as_text(call.result)}"))
    if case.expected_output is not None:
        parts.append(("expected", as_text(case.expected_output)))
    parts.append(("answer", as_text(result.output)))
    screen = console()
    screen.print(f"\n{item.id}  {item.agent}  {item.metric}  ({left} wait)", style="bold", markup=False)
    for name, text in parts:
        screen.print(name, style="dim", markup=False)
        screen.print("  " + text.replace("\n", "\n  "), markup=False)
    screen.print(f"question\n  {item.question}", style="bold", markup=False)
