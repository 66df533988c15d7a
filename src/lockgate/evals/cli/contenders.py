"""What a command names: versions, their rubric, the golden set, evaluations of before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockgate.errors import InputError, Unavailable

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import Rubric, Scorecard
    from lockgate.evals.service import Contender, GoldenSet


def only_agent(app: App) -> str:
    from lockgate.versions.lockfile import read_lock

    agents = sorted({entry.agent for entry in read_lock(app.project.root)})
    if len(agents) == 1:
        return agents[0]
    if not agents:
        raise InputError("no agent is locked here", remedy="give --agent agents/NAME.yaml, or `lockgate lock` first")
    raise InputError(f"which agent? There are {', '.join(agents)}", remedy="give --agent NAME")


def contender(app: App, ref: str, env: str, model_override: str | None = None) -> Contender:
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


def baseline_of(app: App, ref: str | None, candidate: Contender, env: str) -> Contender | None:
    """The version to be as good as; None when there is none, or it is the candidate itself."""
    if ref == "none":
        return None
    if ref is None:
        stable = app.stable(env, candidate.agent)
        if stable is None:
            return None
        ref = stable.behaviour_digest
    found = contender(app, ref, env)
    return None if found.effective_digest == candidate.effective_digest else found


def rubric_of(
    app: App,
    candidate: Contender,
    *,
    judge: str | None = None,
    threshold: list[str] | None = None,
    trials: int | None = None,
    concurrency: int | None = None,
    max_usd: float | None = None,
    whole: bool | None = None,
) -> Rubric:
    import msgspec

    from lockgate.evals.rubric import judge_named, parse_rubric, parse_thresholds, with_thresholds

    root = app.project.root
    rubric = parse_rubric(
        app.versions.settings(candidate.behaviour_digest).evals, root, where=f"{candidate.agent}: evals"
    )
    rubric = with_thresholds(rubric, parse_thresholds(",".join(threshold or ())), root)
    given: dict[str, Any] = {"trials": trials, "concurrency": concurrency, "max_usd": max_usd, "whole": whole}
    if judge is not None:
        given["judge"] = judge_named(judge)
    return msgspec.structs.replace(rubric, **{name: value for name, value in given.items() if value is not None})


def golden_of(
    app: App, dataset: Path | None, rubric: Rubric, candidate: Contender, slice: list[str] | None = None
) -> GoldenSet:
    from lockgate.evals.golden import outlines
    from lockgate.evals.service import GoldenSet

    whole = _whole_golden(app, dataset, rubric, candidate)
    if not slice:
        return whole
    wanted = {tag for part in slice for tag in part.split(",")}
    known_by = outlines(whole.cases)
    cases = [whole.cases[row] for row, case in enumerate(known_by) if wanted & set(case.tags)]
    if not cases:
        known = sorted({tag for case in known_by for tag in case.tags})
        raise InputError(
            f"no case has the tag {', '.join(sorted(wanted))}", remedy=f"tags: {', '.join(known) or 'none'}"
        )
    return GoldenSet(f"{whole.name} ({', '.join(sorted(wanted))})", cases)


def _whole_golden(app: App, dataset: Path | None, rubric: Rubric, candidate: Contender) -> GoldenSet:
    from lockgate.evals.golden import open_cases
    from lockgate.evals.service import GoldenSet

    if dataset is not None:
        found = dataset if dataset.exists() or dataset.is_absolute() else app.project.root / dataset
        return GoldenSet(str(dataset), open_cases(found, shown_as=str(dataset)))
    if rubric.dataset is None:
        raise InputError(
            f"agent {candidate.agent!r} names no golden set", remedy="add evals.dataset to its file, or --dataset"
        )
    return GoldenSet(rubric.dataset, open_cases(app.project.root / rubric.dataset, shown_as=rubric.dataset))


def last_cards(app: App, ref: str | None, env: str) -> list[Scorecard]:
    if ref is None:
        cards = app.evals.last_of_each_agent()
        if not cards:
            raise none_yet("nothing was evaluated here")
        return cards
    version = contender(app, ref, env)
    card = app.evals.last(version.effective_digest)
    if card is None:
        raise none_yet(f"{version.label} was not evaluated for {env!r} yet")
    return [card]


def none_yet(message: str) -> Unavailable:
    return Unavailable(message, remedy="lockgate eval")
