"""The control plane's eye on batches: their providers are asked, also when no client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lockgate.clock import Clock
from lockgate.gateway.batches import store
from lockgate.gateway.batches.asking import Asking
from lockgate.gateway.batches.settling import Settling, look_at
from lockgate.gateway.batches.store import Batch
from lockgate.gateway.providers import Providers
from lockgate.gateway.upstream import Upstream
from lockgate.limits.store import LOST_SECONDS, living_machines
from lockgate.storage.engine import Database


class Watching:
    """Looks at the open batches that are due, of this machine and of lost ones.

    ``settling`` makes what settles them, of a way to ask.
    """

    def __init__(
        self,
        *,
        control: Database,
        clock: Clock,
        machine: str,
        providers: Callable[[], Providers],
        settling: Callable[[Asking], Settling],
    ) -> None:
        self._control = control
        self._clock = clock
        self._machine = machine
        self._providers = providers
        self._settling = settling

    def tick(self) -> int:
        """Look at what is due. Returns how many there were."""
        with self._control.read() as connection:
            living = living_machines(connection, self._clock() - LOST_SECONDS)
            due = store.due(connection, self._machine, living, self._clock())
        if due:
            asyncio.run(self._look(due))
        return len(due)

    async def _look(self, due: list[Batch]) -> None:
        upstream = Upstream()
        try:
            await look_at(self._settling(Asking(upstream, self._providers())), due)
        finally:
            await upstream.close()
