"""How fast spans become visible: from emit to a reader seeing them, beside the bare SQLite insert of the same rows.

A span is about 1.3 kB, as a chat call with its messages. The writer also encodes each span and looks for secrets in
it; the bare insert gets finished rows. The last line reads OTLP/HTTP JSON as well.

Usage: python benchmarks/trace_ingest.py
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lockgate.storage.engine import Database, open_database
from lockgate.telemetry import otlp
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import CLIENT, OK, Span
from lockgate.telemetry.rows import COLUMNS, to_row
from lockgate.telemetry.table import SpanTable
from lockgate.telemetry.writer import SpanWriter

SPANS = 20_480
ROUNDS = 3
BATCH = 2_000
MESSAGE = "My headphones from order #4411 came broken, and I would like my money back, please. "
ATTRIBUTES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.usage.input_tokens": 240,
    "gen_ai.usage.output_tokens": 31,
    "gen_ai.input.messages": [{"role": "user", "content": MESSAGE * 9}],
    "gen_ai.output.messages": [{"role": "assistant", "content": '{"item": "headphones", "order": "4411"}'}],
    "server.address": "127.0.0.1",
}


def make_spans() -> list[Span]:
    trace_ids = [new_trace_id() for _ in range(SPANS // 8)]
    return [
        Span(
            trace_id=trace_ids[number // 8],
            span_id=new_span_id(),
            parent_id=None,
            name="chat gpt-4o-mini-2024-07-18",
            kind=CLIENT,
            start_ns=time.time_ns(),
            end_ns=time.time_ns() + 900_000_000,
            status=OK,
            run_id=f"run_{number // 8}",
            agent="refund-triage",
            model="gpt-4o-mini-2024-07-18",
            input_tokens=240,
            output_tokens=31,
            cost_nano=54_600,
            attributes=ATTRIBUTES,
        )
        for number in range(SPANS)
    ]


def bare(traces: Database, spans: list[Span]) -> float:
    rows = [to_row(span) for span in spans]
    connection = sqlite3.connect(str(traces.engine.url.database), isolation_level=None)
    connection.execute("pragma synchronous=normal")
    insert = f"insert into spans ({', '.join(COLUMNS)}) values ({', '.join('?' * len(COLUMNS))})"
    start = time.perf_counter()
    for first in range(0, SPANS, BATCH):
        connection.execute("begin immediate")
        connection.executemany(insert, rows[first : first + BATCH])
        connection.execute("commit")
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


def written(traces: Database, spans: list[Span]) -> float:
    writer = SpanWriter(SpanTable(traces))
    start = time.perf_counter()
    for span in spans:
        writer.emit(span)
    assert writer.flush(60)
    seconds = time.perf_counter() - start
    writer.close()
    assert writer.dropped == 0
    return seconds


def ingested(traces: Database, spans: list[Span]) -> float:
    bodies = [otlp_body(spans[first : first + 512]) for first in range(0, SPANS, 512)]
    writer = SpanWriter(SpanTable(traces))
    start = time.perf_counter()
    for body in bodies:
        for span in otlp.read_json(body).spans:
            writer.emit(span)
    assert writer.flush(60)
    seconds = time.perf_counter() - start
    writer.close()
    assert writer.dropped == 0
    return seconds


def otlp_body(spans: list[Span]) -> bytes:
    attributes = [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}}
        for key, value in ATTRIBUTES.items()
    ]
    sent = [
        {
            "traceId": span.trace_id.hex(),
            "spanId": span.span_id.hex(),
            "name": span.name,
            "kind": span.kind,
            "startTimeUnixNano": str(span.start_ns),
            "endTimeUnixNano": str(span.end_ns),
            "attributes": attributes,
            "status": {"code": span.status},
        }
        for span in spans
    ]
    return msgspec.json.encode({"resourceSpans": [{"scopeSpans": [{"spans": sent}]}]})


def measure(run: Callable[[Database, list[Span]], float]) -> float:
    """Spans a second, the median of the rounds, each on a fresh database; every span must be there afterwards."""
    rates = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            traces = open_database(Path(folder) / "traces.db", "traces")
            rates.append(SPANS / run(traces, make_spans()))
            with traces.read() as connection:
                assert connection.exec_driver_sql("select count(*) from spans").scalar() == SPANS
            traces.close()
    return statistics.median(rates)


def main() -> None:
    size = len(to_row(make_spans()[0])[-2])
    print(f"{SPANS:,} spans with attributes of {size:,} bytes, {os.cpu_count()} cores")
    limit = measure(bare)
    print(f"bare SQLite insert         {limit:9,.0f} spans/s")
    for name, run in (("emit to visible", written), ("OTLP JSON to visible", ingested)):
        rate = measure(run)
        print(f"{name:26} {rate:9,.0f} spans/s   {rate / limit:.2f} of the bare insert")


if __name__ == "__main__":
    main()
