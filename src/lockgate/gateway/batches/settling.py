"""A batch's end: what its answers used is charged in place of what was held for it.

Whoever sees first that a batch has ended does it: the gateway when a client asks for the batch, else the control plane,
which asks the provider from time to time. Doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from lockgate.clock import Clock
from lockgate.errors import LockgateError, NotFound, UpstreamError
from lockgate.gateway.batches import store
from lockgate.gateway.batches.asking import Asking
from lockgate.gateway.batches.lines import BatchOutput, Used
from lockgate.gateway.batches.store import Batch, File
from lockgate.gateway.providers import Target
from lockgate.limits import charges
from lockgate.limits.charges import Charges
from lockgate.limits.prices import Prices
from lockgate.money import Nano, show_usd, to_usd
from lockgate.storage.engine import Database
from lockgate.telemetry.metrics import GenAI
from lockgate.telemetry.model import CLIENT, ERROR, OK, Span

log = logging.getLogger(__name__)

_ENDED = frozenset(("completed", "failed", "expired", "cancelled"))
SOONEST, LATEST = 10.0, 600.0
"""Seconds until a provider is asked again: a tenth of the batch's age, between these."""
GIVEN_UP = 30 * 86_400.0
"""A batch this old of which nothing can be told stays charged in full."""
_OUTPUT_SECONDS = 900.0


class Settling:
    """Looks at open batches, and settles those that have ended."""

    def __init__(
        self,
        *,
        asking: Asking,
        control: Database,
        charges: Charges,
        prices: Prices,
        emit: Callable[[Span], None],
        clock: Clock,
        alert: Callable[[str, str, Any, str, str], object],
        metrics: GenAI | None = None,
    ) -> None:
        """``alert(key, kind, severity, subject, message)`` tells people."""
        self._asking = asking
        self._control = control
        self._charges = charges
        self._prices = prices
        self._emit = emit
        self._clock = clock
        self._alert = alert
        self._metrics = metrics

    async def look(self, batch: Batch) -> None:
        """Ask the provider how the batch stands, and settle it when it has ended."""
        target = await self._asking.target(batch.environment, batch.provider)
        reply = await self._asking.ask("GET", target, f"/batches/{batch.id}")
        now = self._clock()
        if reply.status == 404 or now - batch.created_at > GIVEN_UP:
            log.warning("batch %s of %r is gone: it stays charged in full", batch.id, batch.provider)
            await asyncio.to_thread(self._end, batch, store.UNKNOWN, batch.held_nano, None)
        elif not reply.object.get("id"):
            raise UpstreamError(f"provider {batch.provider!r} answered {reply.status} about a batch", sent=True)
        else:
            await asyncio.to_thread(self.looked, batch, reply.object)
            await self.settle(batch, reply.object, target)

    def looked(self, batch: Batch, told: dict[str, Any]) -> None:
        """As :meth:`saw`; and let some time pass until the next look, the longer the older the batch is."""
        now = self._clock()
        wait = min(LATEST, max(SOONEST, (now - batch.created_at) / 10))
        self.saw(msgspec.structs.replace(batch, due_at=now + wait), told)

    def saw(self, batch: Batch, told: dict[str, Any]) -> None:
        """Keep what the provider told of the batch, and whose the files are that it made."""
        now = self._clock()
        with self._control.write() as connection:
            for name in ("output_file_id", "error_file_id"):
                id = told.get(name)
                if isinstance(id, str) and id:
                    store.keep_file(connection, made_by(batch, id, now))
            store.see_batch(connection, batch, told, batch.due_at)

    async def settle(self, batch: Batch, told: dict[str, Any], target: Target) -> None:
        """Charge what the batch used, if it has ended and is this machine's to settle: its own, or a lost one's."""
        if not has_ended(told) or batch.status != store.OPEN:
            return
        if not await asyncio.to_thread(self._charges.reaches, batch.machine):
            return
        price = self._prices.batch_price(target.provider.kind, batch.provider, batch.model)
        output = BatchOutput(batch.endpoint, target.provider.kind, price)
        counts = told.get("request_counts")
        completed = counts.get("completed") if isinstance(counts, dict) else None
        name = told.get("output_file_id")
        if isinstance(name, str) and name:
            async with asyncio.timeout(_OUTPUT_SECONDS):
                await self._read(target, name, output)
        used = output.used
        if isinstance(completed, int) and used.answers < completed:
            raise UpstreamError(
                f"batch {batch.id!r} has {completed} answers, and its output holds {used.answers}", sent=True
            )
        if used.without_usage:
            log.warning("%d answers of batch %s do not say what was used", used.without_usage, batch.id)
            await asyncio.to_thread(self._end, batch, store.UNKNOWN, batch.held_nano, used)
        else:
            await asyncio.to_thread(self._end, batch, store.SETTLED, used.nano, used)

    async def _read(self, target: Target, file_id: str, output: BatchOutput) -> None:
        answer = await self._asking.open("GET", target, f"/files/{file_id}/content", stream=True)
        try:
            if answer.status != 200:
                raise UpstreamError(f"the batch's output {file_id!r} cannot be read: {answer.status}", sent=True)
            while chunk := await answer.piece():
                output.feed(chunk)
                await asyncio.sleep(0)  # a chunk may hold many lines: other calls go on between them
            output.finish()
        finally:
            answer.close()

    def _end(self, batch: Batch, status: str, cost: Nano, used: Used | None) -> None:
        tokens = 0 if used is None else used.input_tokens + used.output_tokens
        if status == store.SETTLED:
            try:
                self._charges.correct(batch.charge_id, charges.Used(cost, tokens))
            except NotFound:
                log.debug("batch %s was settled before", batch.id)
        with self._control.write() as connection:
            ended = store.end_batch(connection, batch, status, cost)
            if status == store.UNKNOWN:
                self._charges.leave_batch(connection, batch.charge_id)
        if ended and status == store.UNKNOWN:
            key, message = charges.alert_key(batch.charge_id), _not_known(batch, cost, used)
            self._alert(key, "charge", "warning", f"batch {batch.id}", message)
        if ended:
            self._emit(_span(batch, status, cost, used, self._clock()))
            if self._metrics is not None:
                model = f"{batch.provider}/{batch.model}"
                self._metrics.cost_usd.add(to_usd(cost), batch.environment, batch.agent or "", model)


async def look_at(settling: Settling, batches: list[Batch]) -> None:
    """Look at each; one whose provider fails is looked at again later."""
    for batch in batches:
        try:
            await settling.look(batch)
        except (LockgateError, TimeoutError) as failure:
            log.warning("batch %s of %r: %s", batch.id, batch.provider, failure)
            await asyncio.to_thread(settling.looked, batch, batch.object)


def has_ended(told: dict[str, Any]) -> bool:
    """Whether a batch has ended, as its provider tells it."""
    status = told.get("status")
    return isinstance(status, str) and status in _ENDED


def made_by(batch: Batch, file_id: str, now: float) -> File:
    """A file that the batch made, of which nothing is known yet but whose it is."""
    return File(
        environment=batch.environment,
        provider=batch.provider,
        id=file_id,
        tenant=batch.tenant,
        key_id=batch.key_id,
        created_at=now,
        purpose="batch_output",
        object={"id": file_id, "object": "file", "purpose": "batch_output", "created_at": int(now)},
        batch_id=batch.id,
    )


def _not_known(batch: Batch, cost: Nano, used: Used | None) -> str:
    if used is None:
        why = f"is gone at provider {batch.provider!r}: what it used cannot be had"
    else:
        why = f"has ended, and {used.without_usage} of its {used.answers} answers do not say what they used"
    return (
        f"batch {batch.id!r} of tenant {batch.tenant!r} {why}. It stays charged at its bound, {show_usd(cost)}, until "
        f"somebody says what the provider's bill has: lockgate budgets correct {batch.charge_id} --usd …"
    )


def _span(batch: Batch, status: str, cost: Nano, used: Used | None, now: float) -> Span:
    attributes = {
        **batch.attributes,
        "gen_ai.operation.name": "batch",
        "gen_ai.provider.name": batch.provider,
        "gen_ai.request.model": batch.model,
        "lockgate.batch.id": batch.id,
        "lockgate.batch.requests": batch.requests,
        "lockgate.batch.held_usd": to_usd(batch.held_nano),
    }
    if status != store.SETTLED:  # the ledger names it among its charges of unknown usage
        attributes["lockgate.batch.charged_usd"], cost = to_usd(cost), 0
    if used is not None and used.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = used.cached_tokens
    return Span(
        trace_id=bytes.fromhex(batch.trace_id),
        span_id=bytes.fromhex(batch.charge_id),
        parent_id=None,
        name=f"batch {batch.model}",
        kind=CLIENT,
        start_ns=int(batch.created_at * 1e9),
        end_ns=int(now * 1e9),
        status=OK if status == store.SETTLED else ERROR,
        run_id=batch.run_id,
        agent=batch.agent,
        model=f"{batch.provider}/{batch.model}",
        input_tokens=0 if used is None else used.input_tokens,
        output_tokens=0 if used is None else used.output_tokens,
        cost_nano=cost,
        attributes=attributes,
    )
