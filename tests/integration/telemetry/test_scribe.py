"""The process that writes another one's spans: what it was given is written once, whoever of the two dies."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from lockgate.process import alive
from lockgate.storage import schema
from lockgate.storage.engine import Database, open_database
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import Span
from lockgate.telemetry.scribe import Scribe


def make_spans(number: int) -> list[Span]:
    return [
        Span(trace_id=new_trace_id(), span_id=new_span_id(), parent_id=None, name="s", start_ns=1, end_ns=2)
        for _ in range(number)
    ]


def count(traces: Database) -> int:
    with traces.read() as connection:
        return connection.execute(select(func.count()).select_from(schema.spans)).scalar_one()


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.fixture
def scribe(path: Path) -> Iterator[Scribe]:
    made = Scribe(path)
    yield made
    made.close()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("begin immediate")
    try:
        yield
    finally:
        connection.execute("rollback")
        connection.close()


def kill(scribe: Scribe, signum: signal.Signals) -> None:
    assert scribe.pid is not None
    os.kill(scribe.pid, signum)


def within(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds
    return lambda: end


def test_what_it_answered_for_is_in_the_database(path: Path, scribe: Scribe) -> None:
    assert scribe.write(make_spans(300), within(30)) == 0
    assert count(open_database(path, "traces")) == 300


def test_a_scribe_that_was_killed_is_started_anew_and_nothing_is_lost_or_written_twice(
    path: Path, scribe: Scribe
) -> None:
    traces, spans = open_database(path, "traces"), make_spans(200)
    assert scribe.write(spans[:100], within(30)) == 0
    kill(scribe, signal.SIGKILL)
    assert scribe.write(spans, within(30)) == 0
    assert count(traces) == 200


def test_a_database_that_stays_locked_costs_the_batch_at_the_deadline_and_not_more_time(
    path: Path, scribe: Scribe
) -> None:
    traces = open_database(path, "traces")
    with locked(path):
        assert scribe.write(make_spans(10), within(1.0)) == 10
    assert scribe.write(make_spans(5), within(30)) == 0
    assert count(traces) >= 5


def test_a_span_that_no_database_takes_is_lost_alone(path: Path, scribe: Scribe) -> None:
    spans = make_spans(3)
    spans[0].attributes = {7: "a key that is no text"}  # type: ignore[dict-item]
    spans[1].cost_nano = 2**70
    assert scribe.write(spans, within(30)) == 1
    assert count(open_database(path, "traces")) == 2


def test_a_process_with_many_open_connections_can_start_one_anew(path: Path, scribe: Scribe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        kill(scribe, signal.SIGKILL)
        assert scribe.write(make_spans(1), within(30)) == 0
    finally:
        scribe.close()
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count(open_database(path, "traces")) == 1


def test_a_terminals_interrupt_does_not_end_it(path: Path, scribe: Scribe) -> None:
    assert scribe.write(make_spans(1), within(30)) == 0
    for signum in (signal.SIGINT, signal.SIGTERM):
        kill(scribe, signum)
    before = scribe.pid
    assert scribe.write(make_spans(1), within(30)) == 0
    assert scribe.pid == before


def test_its_location_is_not_among_its_arguments(scribe: Scribe, path: Path) -> None:
    assert scribe.write([], within(30)) == 0  # from when it answers on it is a program of its own
    command = Path(f"/proc/{scribe.pid}/cmdline").read_bytes()
    assert b"scribe" in command
    assert str(path).encode() not in command


KILLED = """
import os, signal, sys, threading, time
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import Span
from lockgate.telemetry.scribe import Scribe

scribe = Scribe(sys.argv[1])
print(scribe.pid, flush=True)
span = Span(trace_id=new_trace_id(), span_id=new_span_id(), parent_id=None, name="s", start_ns=1, end_ns=2)
scribe.write([span], lambda: float("inf"))
print("written", flush=True)
spans = [
    Span(trace_id=new_trace_id(), span_id=new_span_id(), parent_id=None, name="s", start_ns=1, end_ns=2)
    for _ in range(50)
]
threading.Thread(target=scribe.write, args=(spans, lambda: float("inf")), daemon=True).start()
time.sleep(0.5)  # the database is locked: the batch is the scribe's, and not written
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_handed_over_is_written_and_its_scribe_ends(path: Path) -> None:
    traces = open_database(path, "traces")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    scribe = int(child.stdout.readline())
    assert child.stdout.readline() == "written\n"
    with locked(path):
        assert child.wait(30) == -signal.SIGKILL
    child.stdout.close()
    wait_until(lambda: not alive(scribe))
    assert count(traces) == 51
