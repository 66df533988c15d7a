"""``lockgate approvals`` and ``lockgate tools``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import msgspec
import typer

from lockgate.console import JsonFlag, Reason, Who, console, emit, group, table, user
from lockgate.errors import InputError
from lockgate.tools.model import Approval, ApprovalStatus

if TYPE_CHECKING:
    from lockgate.tools.registry import ToolView

approvals = group("Decide on tool calls that wait for a person.\n\nExample: lockgate approvals list")
tools = group("List tools and their contracts.\n\nExample: lockgate tools list")

ApprovalId = Annotated[str, typer.Argument(help="The approval's id, as `approvals list` shows it.")]


@approvals.command("list")
def list_approvals(
    status: Annotated[str, typer.Option("--status", help="pending, approved, … or all.")] = "pending",
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 100,
    json: JsonFlag = False,
) -> None:
    """List tool calls that wait for a yes, or waited.

    Example: lockgate approvals list --status all --agent refund-triage
    """
    from lockgate.bootstrap import open_app

    known = get_args(ApprovalStatus)
    if status != "all" and status not in known:
        raise InputError(f"--status is {status!r}", remedy=f"one of {', '.join(known)}, all")
    app = open_app()
    app.approvals.expire()
    wanted = None if status == "all" else cast(ApprovalStatus, status)
    found = app.approvals.listed(status=wanted, agent=agent, limit=limit)
    shown: list[tuple[str, Callable[[Approval], str | None]]] = [
        ("id", lambda a: a.id),
        ("status", lambda a: a.status),
        ("agent", lambda a: a.agent),
        ("environment", lambda a: a.environment),
        ("tool", lambda a: a.tool),
        ("arguments", lambda a: _short(a.arguments)),
        ("asked at", lambda a: _when(a.requested_at)),
    ]
    if any(a.decided_by for a in found):
        shown.append(("decided by", lambda a: a.decided_by))
    columns = [name for name, _ in shown]
    rows = [[of(a) for _, of in shown] for a in found]

    def render() -> None:
        if rows:
            table(columns, rows)
        else:
            console().print("Nothing waits for a decision." if status == "pending" else "There are none.")

    emit(found, json, render)


@approvals.command("show")
def show_approval(approval: ApprovalId, json: JsonFlag = False) -> None:
    """Show one call in full: what would be done, for which run, and under which version.

    Example: lockgate approvals show apr_01k9x7c1r5
    """
    from lockgate.bootstrap import open_app

    found = open_app().approvals.get(approval)
    emit(found, json, lambda: _draw(found))


@approvals.command("approve")
def approve(approval: ApprovalId, by: Who = "", reason: Reason = "", json: JsonFlag = False) -> None:
    """Say yes to this one call, once. The run then continues by itself.

    Example: lockgate approvals approve apr_01k9x7c1r5 --reason "seen the photo"
    """
    from lockgate.bootstrap import open_app

    found = open_app().approvals.approve(approval, by or user(), reason)
    said = f"{found.id} is approved; run {found.run_id} continues while `lockgate up` runs."
    emit(found, json, lambda: console().print(said, markup=False))


@approvals.command("reject")
def reject(approval: ApprovalId, by: Who = "", reason: Reason = "", json: JsonFlag = False) -> None:
    """Say no to this one call. The run continues and is told so.

    Example: lockgate approvals reject apr_01k9x7c1r5 --reason "not our product"
    """
    from lockgate.bootstrap import open_app

    found = open_app().approvals.reject(approval, by or user(), reason)
    said = f"{found.id} is rejected; run {found.run_id} is told so while `lockgate up` runs."
    emit(found, json, lambda: console().print(said, markup=False))


@tools.command("list")
def list_tools(
    agent: Annotated[
        str | None, typer.Argument(help="An agent or a version of it. Default: all that are locked.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """List the tools of an agent, or of every locked version.

    Example: lockgate tools list refund-triage@3
    """
    from lockgate.bootstrap import open_app
    from lockgate.tools.registry import tools_of
    from lockgate.versions.lockfile import read_lock

    app = open_app()
    refs = [agent] if agent else sorted({entry.agent for entry in read_lock(app.project.root)})
    found = [view for ref in refs for view in tools_of(app.versions.load(app.versions.find(ref)))]
    rows = [(view.agent, view.name, view.effect, _how(view), view.python, view.description) for view in found]

    def render() -> None:
        if rows:
            table(("agent", "tool", "effect", "call", "python", "description"), rows)
        else:
            console().print("There are no tools. An agent file names them under `tools`.", markup=False)

    emit(found, json, render)


@tools.command("show")
def show_tool(
    agent: Annotated[str, typer.Argument(help="An agent, or a version of it.")],
    tool: Annotated[str, typer.Argument(help="The tool's name.")],
    json: JsonFlag = False,
) -> None:
    """Show one tool's contract: what it takes, gives and does.

    Example: lockgate tools show refund-triage issue_refund
    """
    from lockgate.bootstrap import open_app
    from lockgate.tools.registry import tool_of

    app = open_app()
    found = tool_of(app.versions.load(app.versions.find(agent)), tool)
    emit(found, json, lambda: _draw(found))


def _draw(found: Approval | ToolView) -> None:
    shown: dict[str, Any] = msgspec.to_builtins(found)
    for name, value in shown.items():
        if name.endswith("_at") and value is not None:
            shown[name] = _when(value)
        elif isinstance(value, (dict, list)):
            shown[name] = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    table(("field", "value"), [(name, value) for name, value in shown.items() if value not in (None, "")])


def _how(view: ToolView) -> str:
    if not view.callable:
        return "no contract"
    return "handler" if view.handler else "asks" if view.approval else "free"


def _short(arguments: dict[str, Any]) -> str:
    text = msgspec.json.encode(arguments).decode()
    return text if len(text) <= 80 else text[:79] + "…"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
