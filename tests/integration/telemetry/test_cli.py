"""What `lockgate trace` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.storage.engine import open_database
from lockgate.telemetry.model import ERROR, OK, Span
from lockgate.telemetry.table import SpanTable
from lockgate.telemetry.writer import SpanWriter

runner = CliRunner()
ROOT, CALL = b"r" * 8, b"c" * 8


def make_span(trace: int, span_id: bytes, **fields: Any) -> Span:
    return Span(**({"trace_id": bytes([trace]) * 16, "span_id": span_id, "parent_id": None} | fields))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lockgate.yaml").write_text("project: p\n")
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recorded(project: Path) -> None:
    traces = open_database(project / ".lockgate" / "traces.db", "traces")
    writer = SpanWriter(SpanTable(traces))
    second = 1_000_000_000
    run: dict[str, Any] = {"run_id": "run_1", "agent": "triage", "start_ns": 0, "end_ns": 3 * second}
    writer.emit(make_span(0xAA, ROOT, name="invoke_agent triage", status=OK, **run))
    call: dict[str, Any] = {"start_ns": second, "end_ns": 2 * second, "input_tokens": 1200, "output_tokens": 34}
    failed: dict[str, Any] = {"status": ERROR, "status_message": "timeout [bold]", "cost_nano": 4_200_000}
    writer.emit(make_span(0xAA, CALL, parent_id=ROOT, name="chat m", **call, **failed))
    writer.emit(make_span(0xAB, ROOT, name="chat newer", start_ns=9 * second, end_ns=9 * second + 5_000_000))
    writer.close()
    traces.close()


def show(*arguments: str) -> str:
    shown = runner.invoke(app, ["trace", *arguments])
    assert shown.exit_code == 0, shown.output
    return shown.output


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("target", ["run_1", "aa" * 16, "aaaaaaaa"])
def test_a_trace_is_drawn_with_time_tokens_cost_and_status(target: str) -> None:
    heading, root, call = show(target).splitlines()
    assert heading == f"trace {'aa' * 16}  3.00 s  1,200 + 34 tokens  $0.0042  2 spans"
    assert "invoke_agent triage  3.00 s (self 2.00 s)  1,200 + 34 tokens  $0.0042  ok" in root
    assert "chat m  1.00 s  1,200 + 34 tokens  $0.0042  error: timeout [bold]" in call


@pytest.mark.usefixtures("recorded")
def test_the_newest_trace_is_the_last() -> None:
    assert "chat newer  5.0 ms" in show("--last")
    assert "invoke_agent triage" in show("--last", "--agent", "triage")


@pytest.mark.usefixtures("recorded")
def test_the_list_is_newest_first() -> None:
    lines = show("list").splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["ab" * 8, "aa" * 8]
    assert "run_1" in lines[1]


@pytest.mark.usefixtures("project")
def test_an_empty_list_says_so() -> None:
    assert show("list") == "no traces yet\n"
    assert msgspec.json.decode(show("list", "--json")) == []


@pytest.mark.usefixtures("recorded")
def test_json_is_for_programs() -> None:
    data = msgspec.json.decode(show("run_1", "--json"))
    assert data["totals"]["cost_nano"] == 4_200_000
    assert [(step["depth"], step["name"], step["status"]) for step in data["spans"]] == [
        (0, "invoke_agent triage", "ok"),
        (1, "chat m", "error"),
    ]
    assert msgspec.json.decode(show("list", "--json"))[0]["name"] == "chat newer"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say which trace"),
        (("run_1", "--last"), "say which trace"),
        (("run_1",), "no run or trace 'run_1'"),
        (("--last",), "there is no trace yet"),
    ],
)
def test_what_cannot_be_shown_is_said_with_a_remedy(arguments: tuple[str, ...], says: str) -> None:
    shown = runner.invoke(app, ["trace", *arguments])
    assert shown.exit_code == 2
    assert says in shown.output
    assert "→ " in shown.output


@pytest.mark.usefixtures("recorded")
def test_a_start_that_fits_several_traces_is_refused(project: Path) -> None:
    traces = open_database(project / ".lockgate" / "traces.db", "traces")
    writer = SpanWriter(SpanTable(traces))
    writer.emit(Span(trace_id=b"\xaa" * 15 + b"x", span_id=ROOT, parent_id=None, name="n", start_ns=1, end_ns=1))
    writer.close()
    traces.close()
    shown = runner.invoke(app, ["trace", "aaaaaaaa"])
    assert (shown.exit_code, "several traces" in shown.output) == (2, True)


@pytest.mark.parametrize("command", [["trace", "--last"], ["budgets", "reconcile"], ["budgets", "simulate"]])
def test_damaged_traces_are_one_error_with_its_remedy(project: Path, command: list[str]) -> None:
    home = project / ".lockgate"
    home.mkdir()
    (home / "traces.db").write_bytes(b"damage" * 5000)
    failed = runner.invoke(app, command)
    assert failed.exit_code == 4
    assert f"error: the traces database '{home}/traces.db' is damaged" in failed.stderr
    assert f"move {home}/traces.db away" in failed.stderr
    assert runner.invoke(app, ["keys", "list"]).exit_code == 0
