"""Writes of many runs in few transactions: what waits while one commits goes into the next together.

Order is kept: when a write has been confirmed, all that were submitted before it have ended too.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from lockgate.errors import LockgateError, Unavailable
from lockgate.storage.engine import Database

log = logging.getLogger(__name__)

Work = Callable[[Connection], Any]

_BATCH = 200


class Committer:
    """One thread that writes to one database. ``submit`` from any thread; close it at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lockgate-committer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        """The future holds what ``work`` returns, and is done when that is durable.

        ``work`` may be called twice, so it must have no effect but on the connection; a :class:`LockgateError` must
        come out of it before it changed anything. Other work of the same transaction stands regardless.
        """
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()  # who waits may be cancelled; what it submitted is written all the same
        if self._closed:
            outcome.set_exception(Unavailable("the writer is closed: the process is ending"))
        else:
            self._queue.put((work, outcome))
        return outcome

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, and end."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            work = [item for item in batch if item is not None]
            if work:
                self._write(work)
            if len(work) < len(batch):
                return

    def _write(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        try:
            self._commit(batch)
        except Exception as failure:  # a worker's boundary: each waiting run is told
            if len(batch) > 1:  # one may have spoilt it for all
                for item in batch:
                    self._write([item])
                return
            if isinstance(failure, SQLAlchemyError):
                log.warning("a write failed: %s", failure)
                told: Exception = Unavailable(f"the database does not take writes: {failure}")
                told.__cause__ = failure
            else:
                told = failure
            batch[0][1].set_exception(told)

    def _commit(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        outcomes: list[tuple[Future[Any], Any, LockgateError | None]] = []
        with self._database.write() as connection:
            for work, future in batch:
                try:
                    outcomes.append((future, work(connection), None))
                except LockgateError as refusal:
                    outcomes.append((future, None, refusal))
        for future, result, refused in outcomes:
            if refused is not None:
                future.set_exception(refused)
            else:
                future.set_result(result)
