"""``lockgate prompts``: a prompt's life, on the same path as its agent's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lockgate.console import JsonFlag, console, emit, group, print_error, table, user
from lockgate.errors import LockgateError

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.rollouts.model import Deployment
    from lockgate.rollouts.service import Deployed
    from lockgate.versions.prompts.catalogue import Prompt

T = TypeVar("T")

prompts = group("List, compare, release and roll back prompts.\n\nExample: lockgate prompts list")

Name = Annotated[
    str, typer.Argument(metavar="PROMPT", help="The prompt's name (its newest version), NAME@VERSION, or its path.")
]
Environment = Annotated[str, typer.Option("--env", "-e", help="The environment.")]


@prompts.command("list")
def list_command(json: JsonFlag = False) -> None:
    """List prompts: what each is for, who owns it, which agents use it, where it serves, and its last scorecard.

    Example: lockgate prompts list
    """
    from msgspec.structs import asdict

    from lockgate.bootstrap import open_app
    from lockgate.versions.prompts import catalogue

    app = open_app()
    found = catalogue.prompts(app.versions)
    verdicts = [_verdict_of(app, one) for one in found]
    rows = [
        (
            one.name,
            one.version,
            _short(one.digest),
            one.owner or "nobody",
            ", ".join(one.used_in),
            ", ".join(one.serves_in),
            verdict,
            one.objective,
            one.path,
        )
        for one, verdict in zip(found, verdicts, strict=True)
    ]
    columns = ("prompt", "version", "text", "owner", "used by", "serves in", "scorecard", "objective", "file")
    data = [{**asdict(one), "verdict": verdict} for one, verdict in zip(found, verdicts, strict=True)]
    emit(data, json, lambda: table(columns, rows))


@prompts.command()
def show(name: Name, json: JsonFlag = False) -> None:
    """Show a prompt and every text of it that was locked: where it serves, and its last scorecard.

    Example: lockgate prompts show refund-triage
    """
    from lockgate.bootstrap import open_app
    from lockgate.versions.prompts import catalogue

    app = open_app()
    prompt = catalogue.find(app.versions, name)
    texts: list[dict[str, Any]] = [
        {
            "digest": text.digest,
            "version": f"{text.agent}@{text.file_version}",
            "behaviour_digest": text.behaviour_digest,
            "locked_at": text.locked_at,
            "git_commit": text.git_commit,
            "labels": text.labels,
            "verdict": _verdict(app, text.behaviour_digest),
        }
        for text in catalogue.history(app.versions, prompt)
    ]

    def draw() -> None:
        shown = (
            ("prompt", prompt.name if prompt.version is None else f"{prompt.name}, version {prompt.version}"),
            ("file", prompt.path),
            ("objective", prompt.objective),
            ("owner", prompt.owner),
        )
        table(("", ""), [*shown, *((str(key), value) for key, value in prompt.metadata.items())])
        console().print()
        table(
            ("text", "agent", "version", "locked (UTC)", "serves in", "scorecard"),
            [
                (
                    _short(one["digest"]),
                    one["version"],
                    _short(one["behaviour_digest"]),
                    datetime.fromtimestamp(one["locked_at"], UTC).strftime("%Y-%m-%d %H:%M"),
                    ", ".join(one["labels"]),
                    one["verdict"],
                )
                for one in texts
            ],
        )

    emit({"prompt": prompt, "texts": texts}, json, draw)


@prompts.command()
def compare(
    before: Annotated[str, typer.Argument(help="A version of an agent: AGENT@3, a digest, or an agent file.")],
    after: Annotated[str, typer.Argument(help="Another.")],
    json: JsonFlag = False,
) -> None:
    """Compare the prompts of two versions; `lockgate compare` runs both on the golden set.

    Example: lockgate prompts compare refund-triage@2 refund-triage@3
    """
    from lockgate.bootstrap import open_app
    from lockgate.versions.prompts import catalogue

    lines = catalogue.difference(open_app().versions, before, after)

    def draw() -> None:
        for line in lines or ["the same text"]:
            console().print(line, markup=False, soft_wrap=True)

    emit({"before": before, "after": after, "same": not lines, "diff": lines}, json, draw)


@prompts.command()
def release(
    name: Name,
    env: Environment = "prod",
    override: Annotated[
        str | None, typer.Option("--override", help="Go past policy and holds, for this reason (audited).")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Deploy every agent that uses the prompt: gate, policy and rollout as with `lockgate deploy`.

    Example: lockgate prompts release refund-triage --env prod
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    by = f"cli:{user()}"

    def deploy(ref: str) -> Deployed:
        return app.rollouts.deploy(ref, env, override_reason=override, by=by)

    done, failures = _each(_find(app, name).used_in, deploy)
    rows = [(one.version.agent, one.outcome, _short(one.version.behaviour_digest), one.message) for one in done]
    emit(done, json, lambda: table(("agent", "outcome", "version", ""), rows))
    _end(failures)


@prompts.command()
def undo(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the audit log.")],
    env: Environment = "prod",
    json: JsonFlag = False,
) -> None:
    """Take the previous version of every agent that uses the prompt back, as `lockgate rollout undo` does.

    Example: lockgate prompts undo refund-triage --env prod --reason "too curt"
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    by = f"cli:{user()}"

    def take_back(agent: str) -> Deployment:
        return app.rollouts.undo(agent, env, reason=reason, by=by)

    done, failures = _each(_find(app, name).used_by, take_back)
    rows = [(one.agent, _short(one.stable.behaviour_digest)) for one in done]
    emit(done, json, lambda: table(("agent", "serves again"), rows))
    _end(failures)


def _find(app: App, name: str) -> Prompt:
    from lockgate.errors import InputError
    from lockgate.versions.prompts import catalogue

    prompt = catalogue.find(app.versions, name)
    if not prompt.used_by:
        raise InputError(f"no agent uses {prompt.path!r}", remedy="name it as an agent's system_prompt")
    return prompt


def _each(names: list[str], act: Callable[[str], T]) -> tuple[list[T], list[LockgateError]]:
    """Do it for every agent: one that fails does not keep the others waiting. When all fail, that is the failure."""
    done, failures = [], []
    for name in names:
        try:
            done.append(act(name))
        except LockgateError as failure:
            failures.append(failure)
    if not done:
        raise failures[0]
    return done, failures


def _end(failures: list[LockgateError]) -> None:
    for failure in failures:
        print_error(failure)
    if failures:
        raise typer.Exit(1)


def _verdict_of(app: App, prompt: Prompt) -> str | None:
    """The last verdict on the newest version that was locked with this text."""
    from lockgate.versions.prompts import catalogue

    texts = (one for one in catalogue.history(app.versions, prompt) if one.digest == prompt.digest)
    return next((verdict for one in texts if (verdict := _verdict(app, one.behaviour_digest))), None)


def _verdict(app: App, behaviour_digest: str) -> str | None:
    """The last verdict on a version, in whichever environment."""
    version = app.versions.load(behaviour_digest)
    effective = {app.versions.effective_digest(version, name) for name in app.project.config.environments}
    cards = [card for one in effective if (card := app.evals.last(one)) is not None]
    return str(max(cards, key=lambda card: card.id).verdict) if cards else None


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
