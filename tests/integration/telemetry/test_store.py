"""Traces are found again, newest first, and old ones go."""

from __future__ import annotations

from typing import Any

from lockgate.storage.engine import Database
from lockgate.telemetry.context import new_span_id
from lockgate.telemetry.model import ERROR, Span
from lockgate.telemetry.store import TraceStore
from lockgate.telemetry.table import SpanTable
from lockgate.telemetry.writer import SpanWriter


def record(traces: Database, *spans: Span) -> TraceStore:
    writer = SpanWriter(SpanTable(traces))
    for span in spans:
        writer.emit(span)
    writer.close()
    return TraceStore(traces)


def make_span(trace: int, start: int, **fields: Any) -> Span:
    values: dict[str, Any] = {"trace_id": bytes([trace]) * 16, "span_id": new_span_id(), "parent_id": None}
    return Span(**(values | {"name": "s", "start_ns": start, "end_ns": start + 10} | fields))


def test_a_trace_comes_back_as_it_was_emitted(traces: Database) -> None:
    spans = [
        make_span(1, 1, run_id="run_1", agent="a", attributes={"k": [1, {"x": None}]}, events=[{"name": "e"}]),
        make_span(1, 2, parent_id=new_span_id(), model="m", status=ERROR, status_message="no", cost_nano=3),
    ]
    assert record(traces, *reversed(spans), make_span(2, 1)).trace(b"\1" * 16) == spans


def test_an_unknown_trace_is_empty(traces: Database) -> None:
    assert TraceStore(traces).trace(b"\7" * 16) == []
    assert TraceStore(traces).totals(b"\7" * 16).spans == 0


def test_a_run_is_found_in_every_trace_it_left_a_span_in(traces: Database) -> None:
    store = record(traces, *(make_span(n, n, run_id="run_1") for n in (1, 3, 2)), make_span(4, 9, run_id="run_2"))
    assert store.traces_of_run("run_1") == [bytes([n]) * 16 for n in (3, 2, 1)]


def test_a_trace_is_found_by_the_start_of_its_id(traces: Database) -> None:
    store = record(traces, make_span(0x11, 1), make_span(0x12, 2))
    assert store.traces_starting_with("111") == [b"\x11" * 16]
    assert len(store.traces_starting_with("1")) == 2
    assert store.traces_starting_with("2") == []


def test_recent_traces_come_newest_first_with_their_figures(traces: Database) -> None:
    agent = make_span(2, 50, name="invoke_agent a", agent="a", run_id="run_2", input_tokens=5, cost_nano=9)
    call = make_span(2, 55, parent_id=agent.span_id, input_tokens=5, cost_nano=9, status=ERROR)
    store = record(traces, make_span(1, 10), agent, call)
    newest, older = store.recent()
    assert (newest.name, newest.agent, newest.run_id) == ("invoke_agent a", "a", "run_2")
    assert (newest.totals.spans, newest.totals.errors, newest.totals.input_tokens) == (2, 1, 5)
    assert newest.totals == store.totals(b"\2" * 16)
    assert newest.totals.cost_nano == 9
    assert older.trace_id == "01" * 16
    assert [summary.trace_id for summary in store.recent(1)] == ["02" * 16]
    assert [summary.trace_id for summary in store.recent(agent="a")] == ["02" * 16]
    assert store.recent(agent="nobody") == []


def test_retention_deletes_the_oldest_in_slices(traces: Database) -> None:
    store = record(traces, *(make_span(1, start) for start in range(5)))
    assert [store.delete_before(3, at_most=2) for _ in range(3)] == [2, 1, 0]
    assert [span.start_ns for span in store.trace(b"\1" * 16)] == [3, 4]
