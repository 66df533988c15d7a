"""Spans reach the database from many threads and processes, and a database that is away costs none."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from lockgate.storage import schema
from lockgate.storage.engine import Database, open_database
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import Span
from lockgate.telemetry.scribe import Scribe
from lockgate.telemetry.table import SpanTable
from lockgate.telemetry.writer import SpanWriter


def make_span(name: str = "chat m", **fields: Any) -> Span:
    values: dict[str, Any] = {"trace_id": new_trace_id(), "span_id": new_span_id(), "parent_id": None}
    return Span(**(values | {"name": name, "start_ns": 1, "end_ns": 2} | fields))


def count(traces: Database) -> int:
    with traces.read() as connection:
        return connection.execute(select(func.count()).select_from(schema.spans)).scalar_one()


@pytest.fixture(params=["in its own process", "by a scribe"])
def writer(request: pytest.FixtureRequest, traces: Database) -> Any:
    location = traces.engine.url.render_as_string(hide_password=False)
    made = SpanWriter(Scribe(location) if request.param == "by a scribe" else SpanTable(traces))
    yield made
    made.close()


def test_a_flushed_span_is_there_whole(traces: Database, writer: SpanWriter) -> None:
    span = make_span(parent_id=new_span_id(), run_id="run_1", input_tokens=3, cost_nano=7, attributes={"é": [1, None]})
    writer.emit(span)
    assert writer.flush(60)
    with traces.read() as connection:
        row = connection.execute(select(schema.spans)).mappings().one()
    assert (row["trace_id"], row["span_id"], row["parent_id"]) == (span.trace_id, span.span_id, span.parent_id)
    assert (row["run_id"], row["input_tokens"], row["cost_nano"]) == ("run_1", 3, 7)
    assert msgspec.json.decode(row["attributes"]) == {"é": [1, None]}


def test_a_span_shows_without_a_flush(traces: Database, writer: SpanWriter) -> None:
    writer.emit(make_span())
    deadline = time.monotonic() + 60
    while count(traces) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count(traces) == 1


def test_a_second_copy_of_a_span_changes_nothing(traces: Database, writer: SpanWriter) -> None:
    span = make_span("first")
    for name in ("first", "second"):
        span.name = name
        writer.emit(span)
        assert writer.flush(60)
    with traces.read() as connection:
        assert connection.execute(select(schema.spans.c.name)).scalars().all() == ["first"]


def test_threads_may_emit_at_once(traces: Database, writer: SpanWriter) -> None:
    threads = [threading.Thread(target=lambda: [writer.emit(make_span()) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(60)
    assert count(traces) == 400


@pytest.mark.parametrize("text", ["half a pair \ud83d", "nul \0 byte"])
def test_text_a_database_refuses_is_cleaned_not_lost(traces: Database, writer: SpanWriter, text: str) -> None:
    writer.emit(
        make_span(name=text, status_message=text, model=text, attributes={text: [text]}, events=[{"name": text}])
    )
    assert writer.flush(60)
    assert (count(traces), writer.dropped) == (1, 0)


def test_one_impossible_span_does_not_take_its_batch_along(traces: Database, writer: SpanWriter) -> None:
    for span in (make_span(), make_span(cost_nano=2**70), make_span()):
        writer.emit(span)
    assert writer.flush(60)
    assert (count(traces), writer.dropped) == (2, 1)


def test_an_object_json_does_not_know_is_recorded_as_text(traces: Database, writer: SpanWriter) -> None:
    writer.emit(make_span(attributes={"path": Path("a/b")}))
    assert writer.flush(60)
    with traces.read() as connection:
        assert connection.execute(select(schema.spans.c.attributes)).scalar_one() == b'{"path":"a/b"}'


def test_no_secret_reaches_the_database(traces: Database, writer: SpanWriter) -> None:
    canary = "sk-canary-0123456789abcdef0123"
    writer.emit(make_span(status_message=f"401 for {canary}", attributes={"body": canary}, events=[{"m": canary}]))
    assert writer.flush(60)
    with traces.read() as connection:
        row = connection.execute(select(schema.spans)).one()
    assert not any("canary" in repr(value) for value in row)


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    traces = open_database(tmp_path / "traces.db", "traces")
    lock = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    lock.execute("begin immediate")
    writer = SpanWriter(SpanTable(traces), capacity=5)
    for _ in range(100):
        writer.emit(make_span())
    assert writer.dropped >= 50
    lock.execute("rollback")
    writer.close()
    assert count(traces) + writer.dropped == 100


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    traces = open_database(tmp_path / "traces.db", "traces")
    lock = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    lock.execute("begin immediate")
    writer = SpanWriter(SpanTable(traces))
    writer.emit(make_span())
    assert not writer.flush(timeout=0.5)  # longer than the writer waits for the lock in one try
    lock.execute("rollback")
    assert writer.flush(60)
    assert (count(traces), writer.dropped) == (1, 0)
    writer.close()


def test_close_writes_what_is_queued_and_later_spans_count_as_dropped(traces: Database) -> None:
    writer = SpanWriter(SpanTable(traces))
    for _ in range(10):
        writer.emit(make_span())
    writer.close(60)
    writer.close()
    writer.emit(make_span())
    assert (count(traces), writer.dropped) == (10, 1)


def test_close_keeps_its_deadline_while_the_database_is_locked(tmp_path: Path) -> None:
    traces = open_database(tmp_path / "traces.db", "traces")
    lock = sqlite3.connect(tmp_path / "traces.db", isolation_level=None)
    lock.execute("begin immediate")
    writer = SpanWriter(SpanTable(traces))
    writer.emit(make_span())
    writer.close(timeout=0.1)
    assert writer.dropped == 1
    lock.close()


EMIT_200 = """
import sys
from lockgate.storage.engine import open_database
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import Span
from lockgate.telemetry.table import SpanTable
from lockgate.telemetry.writer import SpanWriter

writer = SpanWriter(SpanTable(open_database(sys.argv[1], "traces")))
for index in range(200):
    writer.emit(Span(trace_id=new_trace_id(), span_id=new_span_id(), parent_id=None, name="s", start_ns=1, end_ns=2))
    if index % 50 == 0:
        writer.flush(60)
"""  # and no close: leaving the interpreter writes what is queued


def test_processes_share_one_database_and_leave_nothing_unwritten(
    database_factory: Callable[[Any], Database],
) -> None:
    traces = database_factory("traces")
    url = traces.engine.url.render_as_string(hide_password=False)
    children = [subprocess.Popen([sys.executable, "-c", EMIT_200, url]) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    assert count(traces) == 400
