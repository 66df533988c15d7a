"""``lockgate eval``, ``compare``, ``cost-gate`` and ``report``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer

from lockgate.console import JsonFlag, console, emit
from lockgate.errors import InputError, Unavailable

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import Rubric, Scorecard, SelfCheck
    from lockgate.evals.service import Contender, GoldenSet

T = TypeVar("T")

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


def eval_command(
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", "-a", help="An agent file, AGENT, AGENT@3 or a digest; default: the project's only agent."
        ),
    ] = None,
    dataset: Dataset = None,
    judge: Judge = None,
    threshold: Threshold = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="The version to be as good as, or `none`; default: what serves in the environment."
        ),
    ] = None,
    trials: Trials = None,
    env: Env = "prod",
    concurrency: Concurrency = None,
    max_usd: Annotated[
        float | None, typer.Option("--max-usd", min=0, help="Start no trial once so much is spent.")
    ] = None,
    model_override: Annotated[
        str | None,
        typer.Option(
            "--model-override", help="Run on PROVIDER:NAME instead of its own model; the verdict is not attested."
        ),
    ] = None,
    slice: Annotated[
        list[str] | None,
        typer.Option("--slice", help="Only cases with this tag, e.g. for a quick look at the backup model."),
    ] = None,
    buy_trials: Annotated[
        int | None,
        typer.Option("--buy-trials", min=1, max=100, help="Run up to so many trials a case while that can settle it."),
    ] = None,
    self_check: Annotated[
        bool,
        typer.Option(
            "--self-check", help="Also find how often this gate blocks an equal version and misses a worse one."
        ),
    ] = False,
    weaker: Annotated[
        str | None, typer.Option("--weaker", help="For --self-check: a model, PROVIDER:NAME, that should be caught.")
    ] = None,
    changed: Annotated[
        str | None,
        typer.Option("--changed", help="Only agents whose digest is not in this git revision, each by its own gate."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget this version's earlier trials and run all of them again.")
    ] = False,
    markdown: MarkdownFile = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write an HTML report with every case.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML, for CI servers.")] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Also write a log that Inspect reads, NAME.eval.")] = None,
    comment: Annotated[
        bool, typer.Option("--comment", help="Also keep it as one comment on this CI job's pull request.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Run the golden set and give a verdict: pass 0, fail 1, inconclusive 3, could not evaluate 4.

    Trials that ran before are not run again.

    Example: lockgate eval --agent agents/refund-triage.v3.yaml --dataset evals/golden/refund-triage.jsonl
    --judge ollama:llama3.1:70b --threshold faithfulness=0.85,answer_relevance=0.8
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    if changed is not None:
        if agent is not None:
            raise InputError("--agent and --changed name agents both", remedy="give one of them")
        refs = _changed(app, changed)
        if not refs:
            emit([], json, lambda: console().print(f"no agent's digest differs from {changed}: nothing to evaluate"))
            return
    else:
        refs = [agent or _only_agent(app)]
    if weaker is not None and not self_check:
        raise InputError("--weaker is for --self-check", remedy="add --self-check, or use --model-override")
    cards: list[Scorecard] = []
    for ref in refs:
        named = (
            markdown
            if markdown is None or len(refs) == 1
            else markdown.with_stem(f"{markdown.stem}-{ref.partition('@')[0]}")
        )
        cards.append(
            _gate(
                app,
                ref,
                env,
                dataset=dataset,
                baseline=baseline,
                model_override=model_override,
                slice=slice,
                buy_trials=buy_trials,
                mutants=(weaker,) if self_check else None,
                fresh=fresh,
                markdown=named,
                judge=judge,
                threshold=threshold,
                trials=trials,
                concurrency=concurrency,
                max_usd=max_usd,
            )
        )
    for card in cards:
        _reports(app, card, {"html": html, "junit": junit, "inspect": log}, comment, many=len(cards) > 1)
    if len(cards) == 1:
        _show(cards[0], json, None)
    else:
        emit(cards, json, lambda: _draw_all(cards))
    worst = next((card for verdict in ("fail", "inconclusive") for card in cards if card.verdict == verdict), cards[0])
    _leave(worst)


def _gate(
    app: App,
    ref: str,
    env: str,
    *,
    dataset: Path | None,
    baseline: str | None,
    model_override: str | None,
    slice: list[str] | None,
    buy_trials: int | None,
    mutants: tuple[str | None] | None,
    fresh: bool,
    markdown: Path | None,
    **given: Any,
) -> Scorecard:
    """Evaluate one agent, sign the verdict, and write its scorecard; ``mutants`` asks for a self-check too."""
    candidate = _contender(app, ref, env, model_override)
    rubric = _rubric(app, candidate, **given)
    golden = _golden(app, dataset, rubric, candidate, slice)
    other = None if model_override else _baseline(app, baseline or rubric.baseline, candidate, env)
    try:
        card = _evaluate(
            app,
            candidate,
            rubric,
            golden,
            env,
            other,
            model_override=model_override,
            fresh=fresh,
            buy_trials=buy_trials,
        )
    except Unavailable as failure:
        if markdown is not None:  # a pull request's comment says so, instead of showing an older verdict
            from lockgate.evals.reports.markdown import no_verdict

            _write(markdown, no_verdict(candidate.agent, candidate.label, failure.message))
        raise
    if mutants is not None and model_override is None:
        check = _self_check(app, candidate, rubric, golden, env, weaker=mutants[0])
        card = app.evals.keep_self_check(card, check)
    if card.verdict != "inconclusive" and model_override is None and not slice:
        details: dict[str, Any] = {
            "evaluation": card.id,
            "reasons": card.reasons,
            "cases": card.cases,
            "trials": card.trials,
            "looks": len(card.looks),
            "level": card.level,
            "fresh": fresh,
        }
        app.versions.attest(
            card.agent,
            card.behaviour_digest,
            card.effective_digest,
            card.dataset_digest,
            card.rubric_digest,
            card.verdict,
            details,
        )
    if markdown is not None:
        _write(markdown, _markdown(card))
    return card


def _self_check(
    app: App, candidate: Contender, rubric: Rubric, golden: GoldenSet, env: str, *, weaker: str | None
) -> SelfCheck:
    judge = rubric.judge
    with _progress() as watch, chdir(app.project.root):
        return _run(
            app.evals.self_check(
                candidate,
                rubric,
                golden,
                root=app.project.root,
                mutants=app.mutants(candidate.behaviour_digest, env, weaker=weaker),
                open_judge=None if judge is None else lambda: app.judge(judge, env),
                watch=watch,
            )
        )


def _changed(app: App, revision: str) -> list[str]:
    """Agents with a locked digest that the revision's lock file does not have: their highest such version."""
    from lockgate.versions.lockfile import read_lock
    from lockgate.versions.revisions import project_at

    if app.versions.lock(check=True).changes:
        raise InputError("lockgate.lock is stale: what changed would not be seen", remedy="lockgate lock")
    with project_at(app.project, revision) as before:
        known = {(entry.agent, entry.digest) for entry in read_lock(before.root)}
    found: dict[str, int] = {}
    for entry in read_lock(app.project.root):
        if (entry.agent, entry.digest) not in known:
            found[entry.agent] = max(entry.version, found.get(entry.agent, 0))
    return [f"{agent}@{version}" for agent, version in sorted(found.items())]


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
    candidate, other = _contender(app, after, env), _contender(app, before, env)
    rubric = _rubric(app, candidate, judge=judge, threshold=threshold, trials=trials, concurrency=concurrency)
    card = _evaluate(app, candidate, rubric, _golden(app, dataset, rubric, candidate), env, other, kind="compare")
    _show(card, json, markdown)
    _leave(card)


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
        card = _last_cards(app, which, env)[0]
    else:
        last = app.evals.last()
        if last is None:
            raise _none_yet("nothing was evaluated here")
        card = last
    from lockgate.evals.reports import files

    if comment:
        console(stderr=True).print(files.comment(card), markup=False)
    form: files.Form = "json" if json else format
    cases = files.cases_of(card, app.project.root) if form in ("html", "junit", "inspect") else []
    if output is not None:
        files.write_report(output, "markdown" if form == "text" else form, card, app.control, cases)
        return
    if form == "inspect":
        raise InputError("an Inspect log is no text", remedy="give --output NAME.eval")
    if comment and not json:
        return

    def render() -> None:
        if form == "text":
            _draw(card)
        else:
            sys.stdout.write(files.rendered(form, card, files.views(app.control, card, cases)))

    emit(card, json, render)


# --- what is under test ---------------------------------------------------------------------------------------


def _only_agent(app: App) -> str:
    from lockgate.versions.lockfile import read_lock

    agents = sorted({entry.agent for entry in read_lock(app.project.root)})
    if len(agents) == 1:
        return agents[0]
    if not agents:
        raise InputError("no agent is locked here", remedy="give --agent agents/NAME.yaml, or `lockgate lock` first")
    raise InputError(f"which agent? There are {', '.join(agents)}", remedy="give --agent NAME")


def _contender(app: App, ref: str, env: str, model_override: str | None = None) -> Contender:
    from lockgate.evals.service import Contender

    version = app.versions.load(app.versions.find(ref))
    behaviour = version.behaviour_digest
    return Contender(
        agent=version.agent,
        label=f"{version.agent}@{version.file_version} ({behaviour.removeprefix('sha256:')[:12]})",
        behaviour_digest=behaviour,
        effective_digest=app.versions.effective_digest(version, env),
        open=lambda: app.subject(behaviour, env, model_override=model_override),
    )


def _baseline(app: App, ref: str | None, candidate: Contender, env: str) -> Contender | None:
    """The version to be as good as; None when there is none, or it is the candidate itself."""
    if ref == "none":
        return None
    if ref is None:
        stable = app.stable(env, candidate.agent)
        if stable is None:
            return None
        ref = stable.behaviour_digest
    found = _contender(app, ref, env)
    return None if found.effective_digest == candidate.effective_digest else found


def _rubric(
    app: App,
    candidate: Contender,
    *,
    judge: str | None = None,
    threshold: list[str] | None = None,
    trials: int | None = None,
    concurrency: int | None = None,
    max_usd: float | None = None,
) -> Rubric:
    import msgspec

    from lockgate.evals.rubric import judge_named, parse_rubric, parse_thresholds, with_thresholds

    root = app.project.root
    rubric = parse_rubric(
        app.versions.settings(candidate.behaviour_digest).evals, root, where=f"{candidate.agent}: evals"
    )
    rubric = with_thresholds(rubric, parse_thresholds(",".join(threshold or ())), root)
    given: dict[str, Any] = {"trials": trials, "concurrency": concurrency, "max_usd": max_usd}
    if judge is not None:
        given["judge"] = judge_named(judge)
    return msgspec.structs.replace(rubric, **{name: value for name, value in given.items() if value is not None})


def _golden(
    app: App, dataset: Path | None, rubric: Rubric, candidate: Contender, slice: list[str] | None = None
) -> GoldenSet:
    from lockgate.evals.service import GoldenSet

    whole = _whole_golden(app, dataset, rubric, candidate)
    if not slice:
        return whole
    wanted = {tag for part in slice for tag in part.split(",")}
    cases = [case for case in whole.cases if wanted & set(case.tags)]
    if not cases:
        known = sorted({tag for case in whole.cases for tag in case.tags})
        raise InputError(
            f"no case has the tag {', '.join(sorted(wanted))}", remedy=f"tags: {', '.join(known) or 'none'}"
        )
    return GoldenSet(f"{whole.name} ({', '.join(sorted(wanted))})", cases)


def _whole_golden(app: App, dataset: Path | None, rubric: Rubric, candidate: Contender) -> GoldenSet:
    from lockgate.evals.golden import read_cases
    from lockgate.evals.service import GoldenSet

    if dataset is not None:
        found = dataset if dataset.exists() or dataset.is_absolute() else app.project.root / dataset
        return GoldenSet(str(dataset), read_cases(found, shown_as=str(dataset)))
    if rubric.dataset is None:
        raise InputError(
            f"agent {candidate.agent!r} names no golden set", remedy="add evals.dataset to its file, or --dataset"
        )
    return GoldenSet(rubric.dataset, read_cases(app.project.root / rubric.dataset, shown_as=rubric.dataset))


def _last_cards(app: App, ref: str | None, env: str) -> list[Scorecard]:
    if ref is None:
        cards = app.evals.last_of_each_agent()
        if not cards:
            raise _none_yet("nothing was evaluated here")
        return cards
    contender = _contender(app, ref, env)
    card = app.evals.last(contender.effective_digest)
    if card is None:
        raise _none_yet(f"{contender.label} was not evaluated for {env!r} yet")
    return [card]


def _none_yet(message: str) -> Unavailable:
    return Unavailable(message, remedy="lockgate eval")


# --- running and showing --------------------------------------------------------------------------------------


def _evaluate(
    app: App,
    candidate: Contender,
    rubric: Rubric,
    golden: GoldenSet,
    env: str,
    baseline: Contender | None,
    *,
    model_override: str | None = None,
    fresh: bool = False,
    buy_trials: int | None = None,
    kind: Literal["quality", "safety", "fallback", "compare"] = "quality",
) -> Scorecard:
    judge = rubric.judge
    with _progress() as watch, chdir(app.project.root):  # where tools run, as in `lockgate run` and in hosts
        evaluation = app.evals.evaluate(
            candidate,
            rubric,
            golden,
            root=app.project.root,
            environment=env,
            baseline=baseline,
            open_judge=None if judge is None else lambda: app.judge(judge, env),
            model_override=model_override,
            fresh=fresh,
            buy_trials=buy_trials,
            kind=kind if model_override is None else "fallback",
            watch=watch,
        )
        return _run(evaluation)


def _run(evaluation: Coroutine[Any, Any, T]) -> T:
    import asyncio

    try:
        return asyncio.run(evaluation)
    except KeyboardInterrupt:
        console(stderr=True).print("interrupted: finished trials are kept, the same command goes on from there")
        raise


@contextmanager
def _progress() -> Iterator[Callable[[str, Any], None] | None]:
    """A progress bar a version on a terminal; nothing when piped."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def watch(label: str, progress: Any) -> None:
            from lockgate.money import show_usd

            if label not in tasks:
                tasks[label] = bars.add_task(label, total=progress.total, note="")
            failed = f", {progress.failed} failed" if progress.failed else ""
            bars.update(tasks[label], completed=progress.done, note=f"{show_usd(progress.cost_nano)}{failed}")

        yield watch


def _show(card: Scorecard, json: bool, markdown: Path | None) -> None:
    if markdown is not None:
        _write(markdown, _markdown(card))
    emit(card, json, lambda: _draw(card))


def _reports(app: App, card: Scorecard, wanted: dict[str, Path | None], comment: bool, *, many: bool) -> None:
    """The reports asked for beside the scorecard; with several agents each file's name ends with its agent."""
    if not comment and not any(wanted.values()):
        return
    from lockgate.evals.reports import files

    cases = files.cases_of(card, app.project.root) if any(wanted.values()) else []
    for form, path in wanted.items():
        if path is not None:
            named = path.with_stem(f"{path.stem}-{card.agent}") if many else path
            files.write_report(named, cast("files.Form", form), card, app.control, cases)
    if comment:
        console(stderr=True).print(files.comment(card), markup=False)


def _draw_all(cards: Sequence[Scorecard]) -> None:
    for card in cards:
        _draw(card)


def _draw(card: Scorecard) -> None:
    from lockgate.evals.reports.terminal import draw

    draw(card, console())


def _markdown(card: Scorecard) -> str:
    from lockgate.evals.reports.markdown import markdown

    return markdown(card)


def _encoded(card: Scorecard) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(card), indent=2).decode() + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as failure:
        raise InputError(f"cannot be written: {failure.strerror}", path=path, remedy="give a path that can") from None


def _leave(card: Scorecard) -> None:
    """End with the verdict's exit code, whatever a trial that would not end is still doing."""
    code = EXIT[card.verdict]
    if card.left_behind:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
