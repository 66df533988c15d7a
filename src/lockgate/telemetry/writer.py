"""Takes spans from the hot path and has them written behind it, in batches.

``emit`` only appends to a queue. One thread per process drains the queue some 50 ms later. A queue that is full drops
spans and counts them; a database that is locked or away is waited for, and nothing is dropped meanwhile but what no
longer fits.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from lockgate.telemetry.model import Span

log = logging.getLogger(__name__)

_LINGER = 0.05  # seconds a batch gathers
_BATCH = 500  # spans written together


class Sink(Protocol):
    """Where spans go: a :class:`~lockgate.telemetry.table.SpanTable`, or a :class:`~lockgate.telemetry.scribe.Scribe`.
    Used by one thread."""

    def write(self, spans: list[Span], until: Callable[[], float]) -> int:
        """Write them; gives how many were lost. Does not wait past the time (monotonic) that ``until`` says."""
        ...

    def close(self) -> None: ...


class SpanWriter:
    """Takes spans from any thread. Make one per process, after any fork."""

    def __init__(self, sink: Sink, *, capacity: int = 50_000) -> None:
        self.dropped = 0
        """Spans given up since the start: queue full, or the database away until the end."""
        self._sink = sink
        self._capacity = capacity
        self._queue: deque[Span | threading.Event] = deque()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._idle = False
        self._closing = False
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="lockgate-spans", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, span: Span) -> None:
        """Hand over a finished span. Never blocks, never raises."""
        if len(self._queue) >= self._capacity or self._closing:
            self.dropped += 1
            return
        self._queue.append(span)
        # The thread says it is idle before it looks at the queue for the last time, so one of the two sees the other.
        if self._idle:
            self._work.set()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every span emitted so far is visible to readers; False when ``timeout`` seconds did not do."""
        if not self._thread.is_alive():
            return not self._queue
        written = threading.Event()
        self._queue.append(written)
        self._hurry.set()
        self._work.set()
        return written.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued and stop; after ``timeout`` seconds the rest counts as dropped."""
        if self._closing:
            return
        self._give_up_at = time.monotonic() + timeout
        self._closing = True
        self._hurry.set()
        self._work.set()
        self._thread.join(timeout + 1.0)
        atexit.unregister(self.close)
        if self.dropped:
            log.warning("%d spans were not recorded", self.dropped)

    def _run(self) -> None:
        while True:
            self._idle = True
            if not self._queue and not self._closing:
                self._work.wait()
            self._idle = False
            self._work.clear()
            if not self._closing and len(self._queue) < _BATCH:
                self._hurry.wait(_LINGER)
            self._hurry.clear()
            while self._queue:
                self._drain()
            if self._closing:
                self._sink.close()
                return

    def _drain(self) -> None:
        """Write one batch, then tell those who wait in ``flush``."""
        spans: list[Span] = []
        waiting: list[threading.Event] = []
        while self._queue and len(spans) < _BATCH:
            item = self._queue.popleft()
            if isinstance(item, Span):
                spans.append(item)
            else:
                waiting.append(item)
        if spans:
            self.dropped += self._sink.write(spans, lambda: self._give_up_at)
        for written in waiting:
            written.set()
