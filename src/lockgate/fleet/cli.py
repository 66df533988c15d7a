"""``lockgate alerts``: what somebody should look at now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, group, table

if TYPE_CHECKING:
    from lockgate.fleet.model import Alert

alerts = group("List and resolve alerts.\n\nExample: lockgate alerts list")


@alerts.command("list")
def list_command(
    resolved: Annotated[bool, typer.Option("--resolved", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    json: JsonFlag = False,
) -> None:
    """List open alerts, the severest first.

    Example: lockgate alerts list --resolved
    """
    from lockgate.bootstrap import open_app

    found = open_app(last_good=True).alerts.list(resolved=resolved, limit=limit)
    emit(found, json, lambda: _draw(found))


@alerts.command()
def resolve(
    alert: Annotated[str, typer.Argument(help="The alert's id.")],
    json: JsonFlag = False,
) -> None:
    """Close an alert by hand; it opens anew when its cause is seen again.

    Example: lockgate alerts resolve alert_01k…
    """
    from lockgate.bootstrap import open_app

    closed = open_app(last_good=True).alerts.resolve_by_id(alert)
    emit(closed, json, lambda: console().print(f"{closed.id} is resolved: {closed.message}", markup=False))


def _draw(found: list[Alert]) -> None:
    if not found:
        console().print("no open alerts")
        return
    table(
        ("alert", "severity", "kind", "subject", "message", "since (UTC)", "state"),
        (
            (
                alert.id,
                alert.severity,
                alert.kind,
                alert.subject,
                alert.message,
                datetime.fromtimestamp(alert.opened_at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                "open" if alert.resolved_at is None else "resolved",
            )
            for alert in found
        ),
    )
