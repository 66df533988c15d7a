"""Runs an evaluation with its progress on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from lockgate.console import console
from lockgate.errors import Unavailable
from lockgate.evals.cli.stopping import awaited

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import Rubric, Scorecard, SelfCheck
    from lockgate.evals.service import Contender, GoldenSet

NEEDED_AFTER = (
    "lockgate.versions.attestation",
    "cryptography.hazmat.primitives.serialization",
    "lockgate.evals.reports.terminal",
    "rich.console",
    "rich.table",
)
"""What signs the verdict and shows it. It is imported while the last answers are waited for."""


def evaluated(
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
    rubric = _under_policy(app, rubric, env)
    # the project's root is where tools run, as in `lockgate run` and in hosts
    with storing(), progress_bars() as watch, chdir(app.project.root):
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
            needed_after=NEEDED_AFTER,
            notes=_going(app, candidate),
        )
        return awaited(evaluation)


def _going(app: App, candidate: Contender) -> list[str]:
    """What of the version's models is soon taken away."""
    version = app.versions.load(candidate.behaviour_digest)
    found = app.versions.deprecations([version])
    return [f"{one.message}; {one.remedy}" if one.remedy else one.message for one in found]


def self_checked(
    app: App, candidate: Contender, rubric: Rubric, golden: GoldenSet, env: str, *, weaker: str | None
) -> SelfCheck:
    judge = rubric.judge
    with progress_bars() as watch, chdir(app.project.root):
        return awaited(
            app.evals.self_check(
                candidate,
                rubric,
                golden,
                root=app.project.root,
                environment=env,
                mutants=app.mutants(candidate.behaviour_digest, env, weaker=weaker),
                open_judge=None if judge is None else lambda: app.judge(judge, env),
                watch=watch,
            )
        )


def _under_policy(app: App, rubric: Rubric, env: str) -> Rubric:
    """The rubric, with what the environment asks of judges."""
    import msgspec

    from lockgate.project.service import environment_policy

    required = environment_policy(app.project, env).require_calibrated_judge
    return msgspec.structs.replace(rubric, calibrated_judges=required)


@contextmanager
def storing() -> Iterator[None]:
    """A full disk or a lost database server is no verdict: could not evaluate."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (DBAPIError, OSError) as failure:
        raise Unavailable(
            f"could not evaluate: results cannot be stored: {str(failure).splitlines()[0]}",
            remedy="check the disk and the database, then run the same command again: finished trials are kept",
        ) from failure


@contextmanager
def progress_bars() -> Iterator[Callable[[str, Any], None] | None]:
    """A progress bar a version on a terminal; nothing when piped."""
    if not sys.stderr.isatty():
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
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def watch(label: str, progress: Any) -> None:
            from lockgate.money import show_usd

            if label not in tasks:
                tasks[label] = bars.add_task(label, total=progress.total, note="")
            failed = f", {progress.failed} failed" if progress.failed else ""
            note = f"{show_usd(progress.cost_nano)}{failed}"
            bars.update(tasks[label], completed=progress.done, total=progress.total, note=note)

        yield watch
