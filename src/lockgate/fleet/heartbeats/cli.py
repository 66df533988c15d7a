"""``lockgate fleet``: which instance runs which version, and which it should."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, group, table

if TYPE_CHECKING:
    from lockgate.fleet.heartbeats.model import Instance

fleet = group("Which instance runs which version, and which it should.\n\nExample: lockgate fleet list --env prod")


@fleet.command("list")
def list_command(
    env: Annotated[str | None, typer.Option("--env", "-e", help="Only this environment.")] = None,
    json: JsonFlag = False,
) -> None:
    """List instances: those that report by heartbeat, and the hosts of this machine.

    Exit code 1 when one is missing or runs another version than it should.

    Example: lockgate fleet list --env prod
    """
    from lockgate.bootstrap import open_app

    found = open_app().fleet.list(env)
    emit(found, json, lambda: _draw(found))
    if any(one.status == "missing" or one.lag for one in found):
        raise typer.Exit(1)


@fleet.command()
def forget(
    agent: Annotated[str, typer.Argument(help="The agent.")],
    instance: Annotated[str, typer.Argument(help="The instance, as `fleet list` shows it.")],
    env: Annotated[str, typer.Option("--env", "-e", help="Its environment.")] = "prod",
) -> None:
    """Expect an instance no more: it was taken down for good. It is back when it reports again.

    Example: lockgate fleet forget refund-triage worker-3 --env prod
    """
    from lockgate.bootstrap import open_app

    open_app().fleet.forget(env, agent, instance)
    console().print(f"{instance} of {agent} in {env} is forgotten.", markup=False)


def _draw(found: list[Instance]) -> None:
    if not found:
        console().print("no instances; lockgate up starts hosts, and others report to POST /api/v1/heartbeats")
        return
    now = time.time()
    table(
        ("env", "agent", "instance", "role", "runs", "should run", "lag", "status", "last seen", "message"),
        (
            (
                one.environment,
                one.agent,
                one.instance,
                one.role,
                _short(one.runs),
                _short(one.should_run),
                _span(one.lag) if one.lag else "",
                one.status,
                f"{_span(now - one.last_seen_at)} ago",
                one.message,
            )
            for one in found
        ),
    )


def _short(version: str) -> str:
    digest = version.rpartition("@")[2].removeprefix("sha256:")
    return digest[:12] if len(digest) > 12 else version


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
