"""``lockgate trace``: what happened, step by step, and what each step took and cost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, draw, emit, table
from lockgate.errors import InputError, NotFound
from lockgate.money import show_usd

if TYPE_CHECKING:
    from rich.text import Text

    from lockgate.telemetry.store import TraceStore, TraceSummary
    from lockgate.telemetry.tree import Node


def trace(
    target: Annotated[str, typer.Argument(help="A run id, a trace id (8 digits are enough), or `list`.")] = "",
    last: Annotated[bool, typer.Option("--last", help="The newest trace.")] = False,
    agent: Annotated[str, typer.Option(help="With `list` or --last: only traces of this agent.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="With `list`: at most so many.")] = 20,
    json: JsonFlag = False,
) -> None:
    """Show a trace as a tree of spans: name, time, tokens, cost, status.

    Example: lockgate trace --last, lockgate trace list --agent refund-triage, lockgate trace run_01k…
    """
    from lockgate.bootstrap import open_app
    from lockgate.telemetry.store import TraceStore

    store = TraceStore(open_app().traces)
    if target == "list":
        found = store.recent(limit, agent=agent or None)
        emit(found, json, lambda: _draw_list(found))
        return
    if last == bool(target):
        raise InputError("say which trace", remedy="lockgate trace RUN, lockgate trace --last, or lockgate trace list")
    _show(store, _newest(store, agent or None) if last else _find(store, target), json)


def _newest(store: TraceStore, agent: str | None) -> bytes:
    recent = store.recent(1, agent=agent)
    if not recent:
        whose = f" of {agent!r}" if agent else ""
        raise NotFound(f"there is no trace{whose} yet", remedy='run something first: lockgate run AGENT "…"')
    return bytes.fromhex(recent[0].trace_id)


def _find(store: TraceStore, target: str) -> bytes:
    found = store.traces_of_run(target)
    if not found and re.fullmatch(r"[0-9a-f]{8,32}", target):
        found = store.traces_starting_with(target)
        if len(found) > 1:
            raise InputError(f"several traces start with {target!r}", remedy="give more digits")
    if not found:
        raise NotFound(f"no run or trace {target!r} is recorded", remedy="lockgate trace list shows the newest ones")
    return found[0]


def _show(store: TraceStore, trace_id: bytes, json: bool) -> None:
    from lockgate.telemetry import tree

    roots = tree.build(store.trace(trace_id))
    totals = tree.totals(roots)
    steps = [_as_data(depth, node) for root in roots for depth, node in root.walk()]
    data = {"trace_id": trace_id.hex(), "totals": totals, "spans": steps}
    emit(data, json, lambda: _draw_tree(trace_id.hex(), roots, totals))


def _as_data(depth: int, node: Node) -> dict[str, Any]:
    """One step for programs: a flat list in the tree's order, since a trace may nest deeper than parsers like."""
    span = node.span
    return {
        "depth": depth,
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex() if span.parent_id else None,
        "name": span.name,
        "start_ns": span.start_ns,
        "duration_ns": node.duration_ns,
        "self_ns": node.self_ns,
        "status": ("unset", "ok", "error")[span.status] if span.status in (0, 1, 2) else "unset",
        "status_message": span.status_message,
        "run_id": span.run_id,
        "agent": span.agent,
        "effective_digest": span.effective_digest,
        "model": span.model,
        "input_tokens": node.input_tokens,
        "output_tokens": node.output_tokens,
        "cost_usd": node.cost_nano / 1e9,
        "attributes": span.attributes,
        "events": span.events,
    }


def _draw_tree(trace_id: str, roots: list[Node], totals: Any) -> None:
    from rich.text import Text
    from rich.tree import Tree

    total = _seconds(totals.end_ns - totals.start_ns)
    tokens = f"{totals.input_tokens:,} + {totals.output_tokens:,} tokens"
    heading = f"trace {trace_id}  {total}  {tokens}  {show_usd(totals.cost_nano)}  {totals.spans} spans"
    drawn = Tree(Text(heading, style="bold"), guide_style="dim")
    branches = [drawn]
    for root in roots:
        for depth, node in root.walk():
            del branches[depth + 1 :]
            branches.append(branches[depth].add(_line(node)))
    draw(drawn)


def _line(node: Node) -> Text:
    from rich.text import Text

    from lockgate.telemetry.model import ERROR, OK

    span = node.span
    line = Text(span.name, style="red" if span.status == ERROR else "")
    line.append(f"  {_seconds(node.duration_ns)}", style="cyan")
    if node.children and node.self_ns < node.duration_ns:
        line.append(f" (self {_seconds(node.self_ns)})", style="dim")
    if node.input_tokens or node.output_tokens:
        line.append(f"  {node.input_tokens:,} + {node.output_tokens:,} tokens", style="dim")
    if node.cost_nano:
        line.append(f"  {show_usd(node.cost_nano)}", style="green")
    line.append("  error" if span.status == ERROR else "  ok" if span.status == OK else "", style="dim")
    if span.status_message:
        line.append(f": {span.status_message}")
    return line


def _draw_list(found: list[TraceSummary]) -> None:
    from datetime import UTC, datetime

    if not found:
        console().print("no traces yet")
        return
    table(
        ("trace", "started (UTC)", "name", "agent", "run", "spans", "errors", "time", "tokens", "cost"),
        (
            (
                summary.trace_id[:16],
                datetime.fromtimestamp(summary.totals.start_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                summary.name,
                summary.agent,
                summary.run_id,
                summary.totals.spans,
                summary.totals.errors or "",
                _seconds(summary.totals.end_ns - summary.totals.start_ns),
                f"{summary.totals.input_tokens + summary.totals.output_tokens:,}",
                show_usd(summary.totals.cost_nano),
            )
            for summary in found
        ),
    )


def _seconds(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if seconds >= 100:
        return f"{seconds / 60:.1f} min"
    return (
        f"{seconds:.2f} s"
        if seconds >= 1
        else f"{seconds * 1000:.1f} ms"
        if seconds < 0.1
        else f"{seconds * 1000:.0f} ms"
    )
