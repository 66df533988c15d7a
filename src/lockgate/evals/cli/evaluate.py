"""``lockgate eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, emit, print_error
from lockgate.errors import InputError, LockgateError
from lockgate.evals.cli.contenders import baseline_of, contender, golden_of, only_agent, rubric_of
from lockgate.evals.cli.files import write
from lockgate.evals.cli.options import EXIT, Concurrency, Dataset, Env, Judge, MarkdownFile, Threshold, Trials, Whole
from lockgate.evals.cli.running import evaluated, self_checked, storing
from lockgate.evals.cli.showing import draw_all, leave, markdown_of, show, write_reports
from lockgate.evals.cli.stopping import KEPT_WITHOUT_FRESH, on_interrupt_say, stoppable

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import Rubric, Scorecard
    from lockgate.evals.service import Contender

SCORECARDS_KEPT = 10
"""Scorecards that stay attached to a version's bundle."""


@stoppable()
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
    whole: Whole = False,
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

    if fresh:
        on_interrupt_say(KEPT_WITHOUT_FRESH)
    app = open_app()
    if changed is not None:
        if agent is not None:
            raise InputError("--agent and --changed name agents both", remedy="give one of them")
        refs = _changed(app, changed)
        if not refs:
            emit([], json, lambda: console().print(f"no agent's digest differs from {changed}: nothing to evaluate"))
            return
    else:
        refs = [agent or only_agent(app)]
    if weaker is not None and not self_check:
        raise InputError("--weaker is for --self-check", remedy="add --self-check, or use --model-override")
    cards: list[Scorecard] = []
    failures: list[LockgateError] = []
    for ref in refs:
        named = (
            markdown
            if markdown is None or len(refs) == 1
            else markdown.with_stem(f"{markdown.stem}-{ref.partition('@')[0]}")
        )
        try:
            with storing():
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
                        comment=comment,
                        judge=judge,
                        threshold=threshold,
                        trials=trials,
                        concurrency=concurrency,
                        max_usd=max_usd,
                        whole=whole or None,
                    )
                )
        except LockgateError as failure:
            if len(refs) == 1:
                raise
            console(stderr=True).print(f"{ref}:", markup=False)
            print_error(failure)  # the others have gates of their own
            failures.append(failure)
    if changed is None:
        show(cards[0], json, None)
    else:
        emit(cards, json, lambda: draw_all(cards))
    if not cards:
        raise typer.Exit(failures[0].exit_code)
    worst = next((card for verdict in ("fail", "inconclusive") for card in cards if card.verdict == verdict), cards[0])
    try:
        for card in cards:
            write_reports(app, card, {"html": html, "junit": junit, "inspect": log}, comment, many=len(refs) > 1)
    except LockgateError as failure:  # a report that cannot be written hides no verdict
        print_error(failure)
        if worst.verdict == "pass":  # and a comment refused is no failed gate
            raise typer.Exit(4 if failure.exit_code == EXIT["fail"] else failure.exit_code) from failure
    if failures and worst.verdict != "fail":
        raise typer.Exit(failures[0].exit_code)
    leave(worst)


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
    comment: bool,
    **given: Any,
) -> Scorecard:
    """Evaluate one agent, sign the verdict, and write its scorecard; ``mutants`` asks for a self-check too."""
    candidate = contender(app, ref, env, model_override)
    try:
        rubric = rubric_of(app, candidate, **given)
        golden = golden_of(app, dataset, rubric, candidate, slice)
        other = None if model_override else baseline_of(app, baseline or rubric.baseline, candidate, env)
        card = evaluated(
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
    except LockgateError as failure:
        _no_verdict(candidate, failure, markdown, comment)
        raise
    if mutants is not None and model_override is None:
        check = self_checked(app, candidate, rubric, golden, env, weaker=mutants[0])
        card = app.evals.keep_self_check(card, check)
    if model_override is None and not slice:  # it says something of the version as it is
        _attach(app, card)
    if card.verdict != "inconclusive" and model_override is None and not slice:
        named = dataset is not None or given.get("judge") or given.get("threshold")
        given_otherwise = _overrides(app, candidate, rubric, card) if named else []
        details: dict[str, Any] = {
            "overrides": given_otherwise,
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
        write(markdown, markdown_of(card))
    return card


def _no_verdict(candidate: Contender, failure: LockgateError, markdown: Path | None, comment: bool) -> None:
    """The reports that would stand with an older verdict say that there is none."""
    if markdown is None and not comment:
        return
    from lockgate.evals.reports import files
    from lockgate.evals.reports.markdown import no_verdict

    text = no_verdict(candidate.agent, candidate.label, str(failure))
    if markdown is not None:
        write(markdown, text)
    if comment:
        try:
            console(stderr=True).print(files.comment(None, text, candidate.agent), markup=False)
        except LockgateError as other:
            print_error(other)


def _attach(app: App, card: Scorecard) -> None:
    """Keep the scorecard with the bundle, so that it goes where the version goes."""
    import msgspec

    from lockgate.versions import layout

    if card.behaviour_digest in app.blobs:
        data = msgspec.json.encode(card)
        app.versions.attach(card.behaviour_digest, layout.SCORECARD, "scorecard.json", data, keep=SCORECARDS_KEPT)


def _overrides(app: App, candidate: Contender, rubric: Rubric, card: Scorecard) -> list[str]:
    """What the command put in the place of the agent's own rubric and golden set."""
    from lockgate.evals.yardstick import yardstick

    own = yardstick(app.versions.settings(candidate.behaviour_digest), app.project.root)
    found = []
    if own.rubric not in (None, rubric.digest):
        found.append("--threshold or --judge")
    if own.golden not in (None, card.dataset_digest):
        found.append("--dataset")
    return found


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
