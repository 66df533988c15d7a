"""``lockgate prompts``: a prompt's life, on the same path as its agent's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, emit, table

if TYPE_CHECKING:
    from lockgate.bootstrap import App

prompts = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, compare, release and roll back prompts.\n\nExample: lockgate prompts list",
)

Name = Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt's name, or its path.")]
Environment = Annotated[str, typer.Option("--env", "-e", help="The environment.")]


@prompts.command("list")
def list_command(json: JsonFlag = False) -> None:
    """List prompts: what each is for, who owns it, which agents use it.

    Example: lockgate prompts list
    """
    from lockgate.bootstrap import open_app
    from lockgate.versions.prompts import catalogue

    found = catalogue.prompts(open_app().versions)
    rows = [
        (
            one.name,
            one.version,
            _short(one.digest),
            one.owner or "nobody",
            ", ".join(one.used_by),
            one.objective,
            one.path,
        )
        for one in found
    ]
    columns = ("prompt", "version", "text", "owner", "used by", "objective", "file")
    emit(found, json, lambda: table(columns, rows))


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
            "verdict": _verdict(app, text.agent, text.behaviour_digest),
        }
        for text in catalogue.history(app.versions, prompt)
    ]

    def draw() -> None:
        shown = (
            ("prompt", prompt.name),
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
    done = [app.rollouts.deploy(agent, env, override_reason=override) for agent in _users(app, name)]
    rows = [(one.version.agent, one.outcome, _short(one.version.behaviour_digest), one.message) for one in done]
    emit(done, json, lambda: table(("agent", "outcome", "version", ""), rows))


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
    done = [app.rollouts.undo(agent, env, reason=reason) for agent in _users(app, name)]
    rows = [(one.agent, _short(one.stable.behaviour_digest)) for one in done]
    emit(done, json, lambda: table(("agent", "serves again"), rows))


def _users(app: App, name: str) -> list[str]:
    from lockgate.errors import InputError
    from lockgate.versions.prompts import catalogue

    prompt = catalogue.find(app.versions, name)
    if not prompt.used_by:
        raise InputError(f"no agent uses {prompt.path!r}", remedy="name it as an agent's system_prompt")
    return prompt.used_by


def _verdict(app: App, agent: str, behaviour_digest: str) -> str | None:
    card: Any = app.evals.last(agent=agent)
    return str(card.verdict) if card is not None and card.behaviour_digest == behaviour_digest else None


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
