"""A process that writes the spans of another one.

For a process that serves requests: what encoding, redacting and inserting takes, the interpreter that serves does not
have. It hands over a batch at a time as MessagePack on a pipe, and keeps it until the scribe says that it is written:
when the scribe dies it is started anew and gets the batch again, of which nothing is written twice. When the other
process dies, by ``kill -9`` too, the scribe writes what it was given, and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from lockgate.errors import Unavailable
from lockgate.storage.engine import Database, open_database
from lockgate.telemetry import logs
from lockgate.telemetry.model import Span
from lockgate.telemetry.rows import cleaned
from lockgate.telemetry.table import SpanTable

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 5.0
"""How long what was given by a process that has died waits for a database that is away."""
_LOOK_MS = 200  # between two looks at the deadline
_PAUSE = 0.5  # seconds until one that died is started anew, or the database is tried again
_END_SECONDS = 2.0
_FRAME = struct.Struct("<I")

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(list[Span]).decode
_UNFIT = (TypeError, ValueError, OverflowError, RecursionError)


class ScribeGone(Exception):
    """It ended before it had answered, or was too late."""


class Scribe:
    """Writes spans into the traces database at ``location`` by a process of its own.

    A :class:`~lockgate.telemetry.writer.Sink`. The process starts at once; what it logs goes where this one's log does.
    """

    def __init__(self, location: str | Path) -> None:
        self._location = str(location)
        self._process: subprocess.Popen[bytes] | None = self._start()

    def write(self, spans: list[Span], until: Callable[[], float]) -> int:
        batch, lost = _encoded(spans)
        while True:
            try:
                if self._process is None:
                    self._process = self._start()
                return lost + _exchange(self._process, batch, until)
            except (ScribeGone, OSError) as gone:
                self._end(0.0)
                if time.monotonic() + _PAUSE > until():
                    return len(spans)
                log.warning("the process that writes spans is started anew: %s", gone)
                time.sleep(_PAUSE)

    def close(self) -> None:
        self._end(_END_SECONDS)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lockgate.telemetry.scribe", "--parent", str(os.getpid())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.write(process.stdin.fileno(), _framed(self._location.encode()))  # not an argument: it may hold a password
        return process

    def _end(self, seconds: float) -> None:
        """End the process, by force if it takes longer."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # it ends when what it was given is written
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _exchange(process: subprocess.Popen[bytes], batch: bytes, until: Callable[[], float]) -> int:
    """Send a batch, and wait until it is written; gives how many of it were lost."""
    assert process.stdin is not None
    assert process.stdout is not None
    to, answers = process.stdin.fileno(), process.stdout.fileno()
    rest = memoryview(_framed(batch))
    while rest:
        _wait(to, select.POLLOUT, until)
        with contextlib.suppress(BlockingIOError):
            rest = rest[os.write(to, rest) :]
    _wait(answers, select.POLLIN, until)
    answer = os.read(answers, _FRAME.size)
    if len(answer) < _FRAME.size:
        raise ScribeGone("it ended")
    return int(_FRAME.unpack(answer)[0])


def _wait(descriptor: int, what: int, until: Callable[[], float]) -> None:
    """Until the pipe can be read or written. By ``poll``: with many connections its number is too high for ``select``.

    A pipe whose other end is gone counts as ready: to use it tells.
    """
    poll = select.poll()
    poll.register(descriptor, what)
    while not poll.poll(_LOOK_MS):
        if time.monotonic() > until():
            raise ScribeGone("it was too late")


def _framed(data: bytes) -> bytes:
    return _FRAME.pack(len(data)) + data


def _encoded(spans: list[Span]) -> tuple[bytes, int]:
    """The spans as MessagePack, and how many of them cannot be encoded."""
    try:
        return _encode(spans), 0
    except _UNFIT:
        pass
    good: list[Span] = []
    for span in spans:
        try:
            clean = Span(**{name: cleaned(value) for name, value in msgspec.structs.asdict(span).items()})
            _encode(clean)
        except _UNFIT as failure:
            log.warning("span %r cannot be encoded: %s", span.name, failure)
        else:
            good.append(clean)
    return _encode(good), len(spans) - len(good)


# --- the other process ----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="lockgate.telemetry.scribe")
    parser.add_argument("--parent", type=int, required=True, help="the process whose spans these are")
    parent = parser.parse_args().parent
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # it ends when the parent has closed the pipe, or died
    logs.configure("spans")
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints must not answer
    gone_at: float | None = None

    def until() -> float:
        nonlocal gone_at
        if os.getppid() == parent:
            return float("inf")
        if gone_at is None:
            gone_at = time.monotonic()
        return gone_at + ORPHAN_SECONDS

    frames = _frames(sys.stdin.buffer)
    traces = _opened(next(frames).decode(), until)
    if traces is None:
        return
    table = SpanTable(traces)
    for batch in frames:
        spans, lost = _decoded(batch)
        answer = _FRAME.pack(lost + table.write(spans, until))
        with contextlib.suppress(BrokenPipeError):
            os.write(answers, answer)
    table.close()


def _frames(source: BinaryIO) -> Iterator[bytes]:
    while len(head := source.read(_FRAME.size)) == _FRAME.size:
        size = int(_FRAME.unpack(head)[0])
        if len(data := source.read(size)) < size:
            return  # the parent died half-way
        yield data


def _opened(location: str, until: Callable[[], float]) -> Database | None:
    while True:
        try:
            return open_database(location, "traces")
        except Unavailable as away:
            log.warning("%s", away.message)
            if time.monotonic() + _PAUSE > until():
                return None
            time.sleep(_PAUSE)


def _decoded(batch: bytes) -> tuple[list[Span], int]:
    """The spans, and how many are none."""
    try:
        return _decode(batch), 0
    except msgspec.ValidationError:
        pass
    good: list[Span] = []
    raws = msgspec.msgpack.decode(batch, type=list[msgspec.Raw])
    for raw in raws:
        try:
            good.append(msgspec.msgpack.decode(raw, type=Span))
        except msgspec.ValidationError as failure:
            log.warning("a span cannot be written: %s", failure)
    return good, len(raws) - len(good)


if __name__ == "__main__":
    main()
