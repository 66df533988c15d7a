"""Runs that copy a finished one: for a candidate in its shadow phase, or for an environment that mirrors another.

They wait in a bounded queue and are asked a few at a time: what does not fit is dropped and counted, and no caller
ever waits for one. What they may do is the host's to say: tools that change something are never carried out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from lockgate import ids
from lockgate.errors import LockgateError
from lockgate.results import RunResult
from lockgate.runs import Origin, RunRequest
from lockgate.telemetry.context import new_trace_id
from lockgate.versions.model import VersionRef

log = logging.getLogger(__name__)

Count = Callable[[str, str], None]
"""``count(environment, outcome)``; outcomes are completed, failed, lost (no host took it) and dropped."""


class Shadows:
    """One queue, and those who work on it."""

    def __init__(
        self, ask: Callable[[RunRequest], Awaitable[RunResult | None]], *, queued: int, at_once: int, count: Count
    ) -> None:
        """``ask`` runs one, and answers None when no host took it."""
        self.dropped = 0
        self._ask = ask
        self._at_once = at_once
        self._count = count
        self._waiting: asyncio.Queue[RunRequest] = asyncio.Queue(queued)
        self._workers: list[asyncio.Task[None]] = []

    def add(self, request: RunRequest) -> None:
        """Queue one, or count it as dropped. Never waits."""
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._at_once)]
        try:
            self._waiting.put_nowait(request)
        except asyncio.QueueFull:
            self.dropped += 1
            self._count(request.environment, "dropped")

    async def close(self) -> None:
        """Stop; what still waits is not run."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            request = await self._waiting.get()
            try:
                result = await self._ask(request)
            except (LockgateError, msgspec.DecodeError) as failure:
                log.warning("the shadow of run %s did not end: %s", request.primary_run, failure)
                self._count(request.environment, "lost")
            else:
                self._count(request.environment, "lost" if result is None else result.status)


def copy_of(primary: RunRequest, version: VersionRef, environment: str, rollout_id: str | None) -> RunRequest:
    """The request of a shadow of ``primary``, still without a token."""
    return msgspec.structs.replace(
        primary,
        run_id=ids.new_id("run"),
        environment=environment,
        behaviour_digest=version.behaviour_digest,
        effective_digest=version.effective_digest,
        arm="shadow",
        mode="shadow",
        rollout_id=rollout_id,
        primary_run=primary.run_id,
        trace_id=new_trace_id().hex(),
        parent_span=None,
        origin=Origin(tags=primary.origin.tags),  # its caller does not pay for a copy
    )
