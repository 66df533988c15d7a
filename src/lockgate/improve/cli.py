"""``lockgate triage`` and ``lockgate feedback``: from a failure in production to a case in the golden set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from lockgate.console import JsonFlag, Reason, Who, console, emit, group, table, user
from lockgate.errors import InputError

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.improve.model import Candidate, RunFacts

triage = group("Review failures and make them test cases.\n\nExample: lockgate triage list")
feedback = group("Record what a user said of a run.\n\nExample: lockgate feedback add run_01k… --rating down")

CandidateId = Annotated[str, typer.Argument(metavar="CANDIDATE", help="The candidate's id.")]


class Rating(StrEnum):
    """What a user thought of an answer."""

    up = "up"
    down = "down"


class Wanted(StrEnum):
    """Which candidates to list."""

    open = "open"
    promoted = "promoted"
    rejected = "rejected"
    all = "all"


@triage.command("list")
def list_command(
    status: Annotated[Wanted, typer.Option(help="Which ones.")] = Wanted.open,
    agent: Annotated[str, typer.Option(help="Only this agent's.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    json: JsonFlag = False,
) -> None:
    """List failures that wait for a decision, the newest first.

    Example: lockgate triage list --agent refund-triage
    """
    app = _open()
    wanted: Any = None if status is Wanted.all else status.value
    found = app.triage.list(status=wanted, agent=agent or None, limit=limit)
    asked = app.triage.inputs(found)
    data = [_as_data(candidate) | {"input": asked[candidate.id]} for candidate in found]
    emit(data, json, lambda: _draw_list(found, asked))


@triage.command()
def show(candidate: CandidateId, json: JsonFlag = False) -> None:
    """Show one candidate: its input, its answer, and why it is here.

    Example: lockgate triage show candidate_01k…
    """
    found, run = _open().triage.show(candidate)
    emit(_as_data(found) | {"input": run.input, "output": run.output}, json, lambda: _draw(found, run))


@triage.command()
def promote(
    candidate: CandidateId,
    expect: Annotated[str | None, typer.Option(help="The right answer: a JSON object or array, or text.")] = None,
    expect_file: Annotated[
        Path | None, typer.Option(help="A file with the right answer; .json is read as JSON.")
    ] = None,
    accept_output: Annotated[bool, typer.Option("--accept-output", help="The answer it gave was right.")] = False,
    expect_tool: Annotated[list[str] | None, typer.Option(help="A tool it must call; repeatable.")] = None,
    must_not: Annotated[list[str] | None, typer.Option(help="Text the answer must not hold; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of the case; repeatable.")] = None,
    cluster: Annotated[str, typer.Option(help="Cases that fail together; default: the cause.")] = "",
    case_id: Annotated[str, typer.Option(help="The case's id; default: from agent and input.")] = "",
    dataset: Annotated[Path | None, typer.Option(help="The golden set; default: the agent's evals.dataset.")] = None,
    who: Who = "",
    json: JsonFlag = False,
) -> None:
    """Append a candidate to the golden set, with what the agent should have done.

    Example: lockgate triage promote candidate_01k… --expect '{"decision": "deny"}'
    """
    from lockgate.evals.golden import append_case, read_cases
    from lockgate.improve.service import Expectation

    app = _open()
    found, _ = app.triage.show(candidate)
    golden = app.project.root / (dataset if dataset is not None else _dataset(app, found.agent))
    case = app.triage.promote(
        candidate,
        golden,
        Expectation(
            output=_expected(expect, expect_file),
            tools=expect_tool or (),
            must_not=must_not or (),
            accept_output=accept_output,
        ),
        who=who or user(),
        append=append_case,
        existing=read_cases(golden) if golden.exists() else (),
        tags=tag or (),
        cluster=cluster or None,
        case_id=case_id or None,
    )
    shown = golden.relative_to(app.project.root) if golden.is_relative_to(app.project.root) else golden
    data = {"case": case, "dataset": str(shown)}
    emit(
        data,
        json,
        lambda: console().print(f"case {case.id} added to {shown}; the next `lockgate eval` has it", markup=False),
    )


@triage.command()
def reject(
    candidate: CandidateId,
    why: Reason = "",
    who: Who = "",
    json: JsonFlag = False,
) -> None:
    """Close a candidate without making it a case.

    Example: lockgate triage reject candidate_01k… --why "the customer was right"
    """
    found = _open().triage.reject(candidate, who=who or user(), why=why)
    emit(_as_data(found), json, lambda: console().print(f"{found.id} is rejected", markup=False))


@triage.command()
def flag(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    note: Annotated[str, typer.Option(help="What is wrong with it.")] = "",
    who: Who = "",
    json: JsonFlag = False,
) -> None:
    """Make a candidate of any run, also one that went well.

    Example: lockgate triage flag run_01k… --note "polite, but wrong"
    """
    found = _open().triage.flag(run, who=who or user(), note=note)
    emit(_as_data(found), json, lambda: console().print(f"{found.id} waits for a decision", markup=False))


@feedback.callback()
def _feedback() -> None:
    """Keeps `add` a command of its own."""


@feedback.command("add")
def add_command(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    rating: Annotated[Rating, typer.Option(help="What the user thought.")],
    comment: Annotated[str, typer.Option(help="In the user's words.")] = "",
    who: Who = "",
    json: JsonFlag = False,
) -> None:
    """Record what a user said of a run; a bad rating makes it a candidate.

    Example: lockgate feedback add run_01k… --rating down --comment "wrong order"
    """
    app = _open()
    value = 1 if rating is Rating.up else -1
    record = app.triage.give_feedback(run, value, comment=comment, author=who or user())
    app.triage.capture()
    emit(record, json, lambda: console().print(f"recorded for {run}", markup=False))


def _open() -> App:
    """The project, with what happened meanwhile captured: also without a control plane, nothing is overlooked."""
    from lockgate.bootstrap import open_app

    app = open_app()
    app.triage.capture()
    return app


def _dataset(app: App, agent: str) -> str:
    settings = app.versions.settings(app.versions.find(agent))
    dataset = settings.evals.get("dataset")
    if not dataset:
        raise InputError(
            f"agent {agent!r} names no golden set", remedy="add evals.dataset to its file, or give --dataset PATH"
        )
    return str(dataset)


def _expected(text: str | None, file: Path | None) -> Any:
    if text is not None and file is not None:
        raise InputError("--expect and --expect-file exclude each other", remedy="give one of them")
    if file is not None:
        try:
            content = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", path=file, remedy="give a text file") from None
        return _json(content, file) if file.suffix == ".json" else content
    if text is None:
        return msgspec.UNSET
    return _json(text, "--expect") if text.lstrip().startswith(("{", "[")) else text


def _json(text: str, where: Path | str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InputError(f"not valid JSON: {error}: {text[:60]!r}", path=where, remedy="correct it") from None


def _as_data(candidate: Candidate) -> dict[str, Any]:
    return msgspec.structs.asdict(candidate) | {"reasons": candidate.reasons}


def _draw_list(found: list[Candidate], asked: dict[str, Any]) -> None:
    if not found:
        console().print("nothing waits for a decision")
        return
    rows = [
        (
            item.id,
            item.agent,
            item.status,
            _excerpt(_question(asked[item.id]), 60),
            ", ".join(item.reasons),
            _excerpt(f"{item.leading.cause}: {item.leading.detail}", 90),
            item.runs,
            f"{item.weight:.1%}",
        )
        for item in found
    ]
    table(("candidate", "agent", "status", "input", "reasons", "why", "runs", "of traffic"), rows)


def _question(asked: Any) -> Any:
    """The last thing that was said, where the input is a conversation."""
    if isinstance(asked, dict) and isinstance(asked.get("messages"), list) and asked["messages"]:
        last = asked["messages"][-1]
        return last.get("content", last) if isinstance(last, dict) else last
    return asked


def _excerpt(value: Any, most: int) -> str:
    text = " ".join(_plain(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _draw(candidate: Candidate, run: RunFacts) -> None:
    text = [
        f"{candidate.id}  {candidate.agent}  {candidate.status}",
        f"{candidate.runs} runs, {candidate.weight:.1%} of the agent's runs of the last 7 days",
        "",
        f"input   {_plain(run.input)}",
        f"output  {_plain(run.output)}",
        "",
        *(f"{finding.reason}  {finding.cause}  {finding.detail}  ({finding.run_id})" for finding in candidate.findings),
    ]
    console().print("\n".join(text), markup=False)
    if candidate.status == "open":
        console().print(f"\nlockgate triage promote {candidate.id} --expect '…'", markup=False)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
