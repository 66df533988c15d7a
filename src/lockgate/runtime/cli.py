"""``lockgate host``, ``run``, ``runs`` and ``replay``."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from lockgate.console import JsonFlag, console, emit, group, table
from lockgate.errors import Conflict, InputError
from lockgate.money import show_usd
from lockgate.results import RunResult

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.runtime.model import Step
    from lockgate.runtime.replay import Replay
    from lockgate.telemetry.model import Span

GATEWAY_URL = "LOCKGATE_GATEWAY_URL"
API_KEY = "LOCKGATE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8700"

Environment = Annotated[str, typer.Option("--env", help="The environment.")]


def host(
    digest: Annotated[str, typer.Option("--digest", help="The version: a behaviour digest, or 12 of its hex digits.")],
    environment: Environment = "dev",
    effective: Annotated[
        str | None,
        typer.Option("--effective", help="The effective digest it must resolve to; refused when it differs."),
    ] = None,
    gateway_url: Annotated[
        str, typer.Option("--gateway-url", envvar=GATEWAY_URL, help="Where its model calls go.")
    ] = DEFAULT_URL,
    drain: Annotated[float, typer.Option("--drain", min=0, help="Seconds that runs get to end on a stop.")] = 30.0,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True, help="End when this process ends.")] = None,
) -> None:
    """Serve the runs of one agent version on a Unix socket. `lockgate up` starts hosts by itself.

    Example: lockgate host --digest 3f1c9a0b7e21 --env prod
    """

    from lockgate.bootstrap import open_app
    from lockgate.process import die_with_parent
    from lockgate.project.service import prices_file
    from lockgate.runtime.hosting import serve
    from lockgate.runtime.tool_metrics import ToolMetrics
    from lockgate.telemetry import logs
    from lockgate.telemetry.metrics import Registry

    if parent is not None:
        die_with_parent(parent=parent)
    logs.configure("host", levels=False)
    app = open_app()
    version = app.versions.load(digest)
    resolved = app.versions.effective_digest(version, environment)
    if effective is not None and app.versions.providers_as_deployed(effective):
        resolved = effective  # with the providers it was deployed with: those it is served with
    if effective is not None and effective != resolved:
        raise Conflict(
            f"{version.agent}@{version.behaviour_digest[:19]} now resolves to {resolved[:19]} in {environment!r}, "
            f"and {effective[:19]} was deployed: its providers have changed since",
            remedy="lockgate eval and lockgate deploy it again, or restore the providers in lockgate.yaml",
        )

    def is_paid(tool: str) -> bool:
        app.prices.refresh(prices_file(app.project))  # people edit it while runs go on
        return app.prices.tool(tool) is not None

    registry = Registry()
    tools = ToolMetrics(registry)

    def emit(span: Span) -> None:
        tools.note(span, environment)
        app.spans.emit(span)

    code = code_folder(app, version.behaviour_digest)
    app.versions.materialise(version, code)
    metrics = app.shared_metrics(registry, f"host-{resolved.removeprefix('sha256:')[:12]}")
    metrics.start()
    os.chdir(app.project.root)
    sys.path.insert(0, str(code))
    try:
        asyncio.run(
            serve(
                version,
                resolved,
                home=app.home,
                control=app.control,
                clock=app.clock,
                code=code,
                gateway_url=gateway_url,
                emit=emit,
                drain=drain,
                is_paid=is_paid,
            )
        )
    finally:
        metrics.stop()
        app.spans.close()


def run(
    agent: Annotated[str, typer.Argument(help="The agent; with --local also a version, such as refund-triage@3.")],
    text: Annotated[str, typer.Argument(help="The user's message; - reads it from standard input.")],
    local: Annotated[
        bool, typer.Option("--local", help="In this process: no gateway, no budgets; writes are only recorded.")
    ] = False,
    environment: Environment = "dev",
    session: Annotated[str | None, typer.Option("--session", help="The session it belongs to.")] = None,
    url: Annotated[str | None, typer.Option("--url", envvar=GATEWAY_URL, help="The gateway.")] = None,
    json: JsonFlag = False,
) -> None:
    """Run an agent once: through the running gateway with the key in LOCKGATE_API_KEY, or --local without one.

    With a gateway, the key names the environment. Exit code 1 when the run failed or waits for an approval.

    Example: lockgate run refund-triage "My kettle arrived broken, order A-1042" --local
    """
    from lockgate.bootstrap import open_app

    said = sys.stdin.read() if text == "-" else text
    app = open_app()
    if local:
        result = asyncio.run(_run_local(app, agent, said, environment))
    else:
        from lockgate.runtime.remote import gateway_url, run_remote

        key = os.environ.get(API_KEY)
        if not key:
            raise InputError(
                f"{API_KEY} is not set", remedy="make a key with `lockgate keys create --tenant …`, or use --local"
            )
        result = run_remote(url or gateway_url(app.home) or DEFAULT_URL, key, agent, said, session=session)
    emit(result, json, lambda: _draw_result(result))
    if result.status != "completed":
        raise typer.Exit(1)


runs = group("List runs, or show one step by step.\n\nExample: lockgate runs show run_01k…", alone=True)


@runs.callback()
def _runs(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_runs()


@runs.command("list")
def list_runs(
    status: Annotated[
        str | None, typer.Option("--status", help="running, suspended, completed, failed or cancelled.")
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    environment: Annotated[str | None, typer.Option("--env", help="Only this environment's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 20,
    json: JsonFlag = False,
) -> None:
    """List runs, the newest first.

    Example: lockgate runs list --status failed --agent refund-triage
    """
    from lockgate.bootstrap import open_app
    from lockgate.runtime import service

    statuses = ("running", "suspended", "completed", "failed", "cancelled")
    if status is not None and status not in statuses:
        raise InputError(f"--status is {status!r}", remedy=f"one of {', '.join(statuses)}")
    control = open_app().control
    found = service.list_runs(control, status=status, agent=agent, environment=environment, limit=limit)
    columns = ("run", "started", "agent", "env", "arm", "status", "cost", "seconds")
    rows = [
        (
            row["id"],
            _when(row["started_at"]),
            row["agent"],
            row["environment"],
            row["arm"],
            row["error_type"] or row["status"],
            show_usd(row["cost_nano"]),
            "" if row["ended_at"] is None else f"{row['ended_at'] - row['started_at']:.1f}",
        )
        for row in found
    ]
    emit(found, json, lambda: table(columns, rows) if rows else console().print("There are no runs yet."))


@runs.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")], json: JsonFlag = False
) -> None:
    """Show one run: its input, every step, and how it ended.

    Example: lockgate runs show run_01k9x7c1r5
    """
    from lockgate.bootstrap import open_app
    from lockgate.runtime import service

    app = open_app()
    row = service.read_run(app.control, run_id)
    steps = service.read_steps(app.control, run_id)
    waits_for = None
    if row["status"] == "suspended" and steps:
        approval = app.approvals.of_step(run_id, steps[-1].seq)
        waits_for = approval.id if approval is not None and approval.status == "pending" else None
    row["approval_id"] = waits_for

    def render() -> None:
        fields = ("id", "agent", "environment", "behaviour_digest", "effective_digest", "arm", "status", "error_type")
        shown = [(name, row[name]) for name in (*fields, "error", "approval_id", "trace_id") if row[name]]
        table(("field", "value"), [*shown, ("input", _short(row["input"])), ("output", _short(row["output"]))])
        if steps:
            console().print()
            table(("step", "kind", "name", "status", "asked", "answer", "cost"), map(_step_row, steps))

    emit({**row, "steps": steps}, json, render)


def replay(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    live_model: Annotated[
        bool,
        typer.Option("--live-model/--recorded", help="Ask the model anew, or answer everything from the record."),
    ] = False,
    other: Annotated[
        str | None,
        typer.Option("--version", metavar="OTHER", help="Another version: AGENT@3, a digest, or an agent file."),
    ] = None,
    live_reads: Annotated[
        bool, typer.Option("--live-reads", help="With --live-model: carry out reads that the record does not have.")
    ] = False,
    environment: Annotated[
        str | None, typer.Option("--env", help="With --live-model: whose providers are asked; default: the run's own.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Re-run a recorded run from its version and its record: no model, no tool, no network.

    With --version, stops at the first step where that version asks for something else, and shows it. With
    --live-model, asks the model from the first step (or from where the versions part); tools still answer from the
    record, and no write is carried out. Exit code 0 when it goes and ends as the run did, 1 when it does not.

    Example: lockgate replay run_01k9x7c1r5 --version refund-triage@4
    """
    from lockgate.bootstrap import open_app
    from lockgate.runtime import service
    from lockgate.runtime.loader import Code
    from lockgate.runtime.replay import replay as replay_run
    from lockgate.runtime.replay_view import draw_replay

    if not live_model and (live_reads or environment):
        flag = "--live-reads" if live_reads else "--env"
        raise InputError(f"{flag} says something only with --live-model", remedy="add --live-model, or leave it out")
    app = open_app()
    row = service.read_run(app.control, run_id)
    steps = service.read_steps(app.control, run_id)
    version = app.versions.load(row["behaviour_digest"] if other is None else app.versions.find(other))
    if version.agent != row["agent"]:
        raise InputError(
            f"{run_id} is a run of {row['agent']!r}, and {other!r} is a version of {version.agent!r}",
            remedy=f"name a version of {row['agent']}",
        )
    folder = code_folder(app, version.behaviour_digest)
    app.versions.materialise(version, folder)
    asked = [step.seq for step in steps if step.kind == "tool" and app.approvals.of_step(run_id, step.seq)]
    os.chdir(app.project.root)

    async def again() -> Replay:
        code, approved = Code(folder), frozenset(asked)
        if not live_model:
            return await replay_run(version, row, steps, code, approved=approved)
        where = environment or row["environment"]
        async with app.models(version, where) as models:
            return await replay_run(
                version,
                row,
                steps,
                code,
                live=models,
                live_reads=live_reads,
                approved=approved,
                environment=where,
            )

    found = asyncio.run(again())
    emit({**msgspec.to_builtins(found), "exact": found.exact}, json, lambda: draw_replay(found, steps))
    if not found.exact:
        raise typer.Exit(1)


def code_folder(app: App, behaviour_digest: str) -> Path:
    """Where a version's code is materialised: ``<home>/run/code/<12 hex>``."""
    return app.home / "run" / "code" / behaviour_digest.removeprefix("sha256:")[:12]


async def _run_local(app: App, agent: str, text: str, environment: str) -> RunResult:
    from lockgate.evals.model import Case

    digest = app.versions.find(agent)
    os.chdir(app.project.root)
    async with app.subject(digest, environment) as subject:
        return await subject(Case(id="run", input=text), 0)


def _draw_result(result: RunResult) -> None:
    out = console()
    if result.status == "completed":
        out.print(result.deliverable, markup=False, soft_wrap=True)
    elif result.status == "suspended":
        out.print(f"The run waits for a person: lockgate approvals approve {result.approval_id}", markup=False)
    else:
        out.print(f"{result.status}: {result.error_type}: {result.error}", markup=False, soft_wrap=True)
    figures = [result.run_id, f"{result.seconds:.1f} s", f"{result.model_calls} model calls"]
    figures += [f"{len(result.tools_used)} tool calls", show_usd(result.cost_nano)]
    out.print(" · ".join(figure for figure in figures if figure), style="dim", markup=False)


def _step_row(step: Step) -> tuple[Any, ...]:
    if step.kind == "model":
        asked: Any = f"{len(step.request.get('messages', []))} messages"
        message = (step.response or {}).get("message") or {}
        answer = message.get("tool_calls") or message.get("content")
    else:
        asked, answer = step.request, step.response
    shown = step.error_type or ("stubbed" if step.status == "stubbed" else "replayed" if step.replayed else step.status)
    return (
        step.seq,
        step.kind,
        step.name,
        shown,
        _short(asked),
        step.error or _short(answer),
        show_usd(step.cost_nano) if step.kind == "model" or step.cost_nano else "",
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 160 else text[:159] + "…"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
