"""Stores what trials came to: in batches, off the event loop, and whatever ends the evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from lockgate.errors import Unavailable
from lockgate.evals.store import CallRecord, TrialRecord, TrialStore

BATCH_SECONDS = 0.1
"""Between two writes to the database: what a power loss may cost."""
BACKLOG = 2000
"""Finished trials that may wait to be stored; past it, no new ones start."""


class Saving:
    """What waits to be stored. ``calls`` gives what trials under way have paid for since it was last asked.

    Raises :class:`Unavailable` from what writes where the database takes nothing. ``room`` is set while trials may
    start.
    """

    def __init__(self, store: TrialStore, calls: Callable[[], list[CallRecord]]) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self._store = store
        self._calls = calls
        self._waiting: list[TrialRecord] = []
        self._writing: tuple[Future[None], Callable[[], None]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eval-store")

    def keep(self, record: TrialRecord) -> None:
        """Store it with the next batch; until then it is in a file."""
        self._waiting.append(record)
        if record.result is not None or record.scores:
            self._store.note(record)
        if len(self._waiting) >= BACKLOG:
            self.room.clear()

    async def go_on(self) -> None:
        """Batch after batch, until this is cancelled."""
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            await self.save()

    async def save(self) -> None:
        """Write what waits. Who stops waiting for it does not stop the writing: the next one, or the end, does it."""
        await self._written()
        batch, calls = self._take()
        if batch or calls:
            self._writing = self._thread.submit(self._store.save, batch, calls), self._store.turn()
            await self._written()
        self.room.set()

    def close(self) -> None:
        """Store what is left, also when the evaluation was interrupted."""
        self._thread.shutdown(wait=True)
        self._end()
        batch, calls = self._take()
        if batch or calls:
            saved = self._store.turn()
            try:
                self._store.save(batch, calls)
            except Exception as failure:  # whatever the driver raises: a full disk, a lost server
                raise _cannot_store(failure) from failure
            saved()
        self._store.close()

    def _take(self) -> tuple[list[TrialRecord], list[CallRecord]]:
        batch, self._waiting = self._waiting, []
        return batch, self._calls()

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.wait((asyncio.wrap_future(self._writing[0]),))
            self._end()

    def _end(self) -> None:
        if self._writing is not None:
            (writing, saved), self._writing = self._writing, None
            try:
                writing.result()
            except Exception as failure:  # as above
                raise _cannot_store(failure) from failure
            saved()


def _cannot_store(failure: Exception) -> Unavailable:
    return Unavailable(
        f"trial results cannot be stored: {str(failure).splitlines()[0]}",
        remedy="check the disk and the database, then run the same command again: finished trials are kept",
    )
