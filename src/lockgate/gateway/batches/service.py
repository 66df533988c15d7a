"""``/v1/batches``: a tenant's own, held when they are made and settled when they have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from lockgate.errors import InputError, LimitExceeded, LockgateError, NotFound, Unavailable, UpstreamError
from lockgate.gateway.access import check_tools
from lockgate.gateway.batches import store
from lockgate.gateway.batches.asking import Asking, Reply, pass_on
from lockgate.gateway.batches.desk import Desk, is_id, parameters, whole_number
from lockgate.gateway.batches.files import Files, listed
from lockgate.gateway.batches.guarding import Terms
from lockgate.gateway.batches.lines import Counted
from lockgate.gateway.batches.settling import SOONEST, Settling, has_ended
from lockgate.gateway.batches.store import Batch, File
from lockgate.gateway.batches.uploads import Uploads
from lockgate.gateway.calls.call import lease_and_hold
from lockgate.gateway.calls.meter import Budgets, refused_headers, standing_headers
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.headers import Headers
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols import fields as f
from lockgate.limits.charges import Charge, Charges
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account, Hold, LeaseNeeded, Rate
from lockgate.limits.prices import Prices
from lockgate.limits.store import BATCH
from lockgate.money import Nano, to_usd
from lockgate.telemetry.context import new_span_id

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
_LISTED, _MAX_LISTED = 20, 100
_ELSEWHERE = ("model", "models", "requests", "input_file_ids")
"""Fields by which some providers take requests that do not stand in the file that was checked."""
_HELD = ("usd", "tokens", "calls")
_SETTLED_SECONDS = 5.0
"""So long whoever asks for a batch that has just ended waits to be told its cost."""
_AGAIN_SECONDS = 1.0
"""Until the store is tried again that did not take a record."""


class Batches:
    """Serves ``/v1/files``, ``/v1/uploads`` and ``/v1/batches``. One per worker."""

    def __init__(
        self,
        *,
        desk: Desk,
        asking: Asking,
        settling: Settling,
        meter: Budgets,
        holds: HoldTable,
        charges: Charges,
        machine: str,
        prices: Prices,
    ) -> None:
        self._desk = desk
        self._asking = asking
        self._settling = settling
        self._files = Files(desk, asking)
        self._uploads = Uploads(desk, asking)
        self._meter = meter
        self._holds = holds
        self._charges = charges
        self._machine = machine
        self._prices = prices
        self._tasks: set[asyncio.Task[None]] = set()
        self._unwritten: set[Hold] = set()

    async def serve(self, exchange: Exchange, who: Identity) -> None:
        """Serve one request to a path below one of them."""
        files, uploads = self._files, self._uploads
        match exchange.method, exchange.path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                await files.upload(exchange, who)
            case "GET", ["files"]:
                await files.list(exchange, who)
            case "GET", ["files", id] if is_id(id):
                await files.retrieve(exchange, who, id)
            case "GET", ["files", id, "content"] if is_id(id):
                await files.content(exchange, who, id)
            case "DELETE", ["files", id] if is_id(id):
                await files.delete(exchange, who, id)
            case "POST", ["uploads"]:
                await uploads.create(exchange, who)
            case "POST", ["uploads", id, "parts"] if is_id(id):
                await uploads.add_part(exchange, who, id)
            case "POST", ["uploads", id, "complete"] if is_id(id):
                await uploads.complete(exchange, who, id)
            case "POST", ["uploads", id, "cancel"] if is_id(id):
                await uploads.cancel(exchange, who, id)
            case "POST", ["batches"]:
                await self._create(exchange, who)
            case "GET", ["batches"]:
                await self._list(exchange, who)
            case "GET", ["batches", id] if is_id(id):
                await self._ask(exchange, who, id, "GET", "")
            case "POST", ["batches", id, "cancel"] if is_id(id):
                await self._ask(exchange, who, id, "POST", "/cancel")
            case method, _:
                raise NotFound(f"there is no {method} {exchange.path[:200]}", remedy="see docs/batches.md")

    async def close(self) -> None:
        """What is not settled yet, the control plane settles."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- making one -------------------------------------------------------------------------------------------

    async def _create(self, exchange: Exchange, who: Identity) -> None:
        fields = f.take_apart(await exchange.body(MAX_BODY), "one request for a batch")
        for name in _ELSEWHERE:
            if f.is_given(fields, name):
                raise InputError(f"{name!r} is not taken here", remedy="write the requests in the input file")
        file, counted = await self._input(who, f.field(fields, "input_file_id", str, ...))
        endpoint = f.field(fields, "endpoint", str, ...)
        if endpoint.removeprefix("/v1") != counted.endpoint.removeprefix("/v1"):
            raise InputError(
                f"'endpoint' is {endpoint!r}, and the file's lines ask {counted.endpoint!r}", remedy="name the same"
            )
        model = f"{file.provider}/{counted.model}"
        self._desk.checks(who)(model, None)
        check_tools(who, counted.tools)  # another key may have uploaded it
        self._desk.check_guards(who, counted)
        self._desk.check_keeping(who)
        target = await self._asking.target(who.environment, file.provider)
        if self._unwritten:  # made and not written down: another one would fare alike
            raise _not_written()
        await self._desk.check_writes()
        span_id = new_span_id()
        attributes: dict[str, Any] = {
            "lockgate.environment": who.environment,
            "lockgate.tenant": who.tenant,
            "lockgate.key": who.key_id,
            "lockgate.request_id": exchange.request_id,
        }
        found, rates = self._meter.limits_of(exchange, who, model, attributes)
        accounts = [account for account in found if account.unit in _HELD]
        if counted.unbounded is not None and any(one.unit == "usd" and one.cap is not None for one in accounts):
            raise InputError(
                f"what {counted.unbounded!r} costs cannot be told beforehand, and a budget applies to this batch",
                remedy="leave it out of the file's lines",
            )
        price = self._prices.batch_price(target.provider.kind, file.provider, counted.model)
        hold = await self._reserve(exchange, accounts, rates, counted.bound(price), counted, span_id)
        self._holds.mark_sent(hold)
        parts = tuple((one.key, hold.amount if one.unit == "usd" else hold.tokens) for one in accounts
                      if one.unit != "calls")  # fmt: skip
        now = self._desk.clock()
        charge = Charge(span_id.hex(), now, "died", parts, hold.tokens)
        reply: Reply | None = None
        sent = True
        try:
            reply = await self._asking.ask("POST", target, "/batches", body=f.encode(fields))
        except UpstreamError as failure:
            sent = failure.sent
            raise
        finally:
            if not sent or (reply is not None and not reply.object.get("id") and 400 <= reply.status < 500):
                self._release(hold, accounts, counted)
            elif reply is None or not reply.object.get("id"):  # who knows whether it was made
                await self._write_down(hold, self._charges.keep, charge)
        told = reply.object
        if told.get("id"):
            run = who.run
            batch = Batch(
                environment=who.environment,
                provider=file.provider,
                id=str(told["id"]),
                tenant=who.tenant,
                key_id=who.key_id,
                machine=self._machine,
                agent=attributes.pop("lockgate.agent"),
                run_id=run.run_id if run else None,
                model=counted.model,
                endpoint=counted.endpoint,
                charge_id=span_id.hex(),
                trace_id=run.trace_id if run else exchange.trace_id.hex(),
                attributes=attributes,
                created_at=now,
                requests=counted.requests,
                held_nano=hold.amount,
                object=told,
                due_at=now + SOONEST,
                terms=msgspec.to_builtins(
                    Terms(
                        behaviour_digest=run.behaviour_digest if run else "",
                        schema=counted.schema,
                        one_schema=counted.one_schema,
                        canary=counted.canary,
                    )
                ),
            )
            cancel = "POST", target, f"/batches/{batch.id}/cancel"
            try:
                written = await self._write_down(hold, self._keep, batch, charge._replace(reason=BATCH))
            except SQLAlchemyError:
                exchange.reply_headers.append(("x-should-retry", "false"))  # the next one would fare alike
                await self._asking.undo(*cancel)
                raise
            if not written:
                if await self._asking.undo(*cancel):
                    raise _not_written(", and it was cancelled")
                exchange.reply_headers.append(("x-should-retry", "false"))
                raise _not_written(f", and {batch.id!r} could not be cancelled: it goes on")
        pass_on(exchange, target, reply, [("x-lockgate-held-usd", f"{to_usd(hold.amount):.9f}")])

    async def _input(self, who: Identity, id: str) -> tuple[File, Counted]:
        file: File | None = await self._desk.read(store.find_file, who, id) if is_id(id) else None
        if file is None:
            raise NotFound(f"no file {id[:128]!r}", remedy="upload it through here first, with purpose=batch")
        if file.counted is None:
            raise InputError(
                f"the file {id!r} has the purpose {file.purpose!r}: what a batch of it costs cannot be told beforehand",
                remedy="upload the lines with purpose=batch",
            )
        return file, msgspec.convert(file.counted, Counted)

    async def _reserve(
        self,
        exchange: Exchange,
        accounts: Sequence[Account],
        rates: Sequence[Rate],
        amount: Nano,
        counted: Counted,
        span_id: bytes,
    ) -> Hold:
        """Hold the most it can cost, and count its calls. In rates, making it is one request; when its lines are
        carried out is the provider's to say."""
        rates = [rate for rate in rates if rate.unit == "requests"]
        now, tag = self._desk.clock(), int.from_bytes(span_id, "big", signed=True)

        def reserve() -> Hold:
            return self._holds.hold(accounts, amount, now=now, tokens=counted.estimate, rates=rates, tag=tag)

        try:
            hold = reserve()
        except LeaseNeeded as needed:
            hold = await lease_and_hold(self._meter.lease, needed, reserve)
        except LimitExceeded as refused:
            exchange.reply_headers += refused_headers(refused, rates)
            raise
        exchange.reply_headers += standing_headers(hold.standings)
        taken: list[Account] = []
        try:
            for account in accounts:
                if account.unit == "calls" and counted.requests > 1:  # the hold itself is one
                    self._holds.count(account, counted.requests - 1, now=now)
                    taken.append(account)
        except LockgateError:
            self._release(hold, taken, counted)
            raise
        return hold

    def _release(self, hold: Hold, counting: Sequence[Account], counted: Counted) -> None:
        self._holds.release(hold)
        for account in counting:
            if account.unit == "calls" and counted.requests > 1:
                self._holds.adjust(account.key, 1 - counted.requests)

    async def _write_down(self, hold: Hold, change: Callable[..., Any], *arguments: Any) -> bool:
        """Write down what a hold became, and settle it. Returns False where the store does not take it: it is tried
        beside until it does, and what is held stays held; should this process end first, that is charged as of any
        process that died. What it will never take, an SQLAlchemyError, is charged likewise when the hold is old."""
        try:
            await self._desk.write(change, *arguments)
        except Unavailable:
            self._unwritten.add(hold)
            self._beside(self._write_later(hold, change, *arguments))
            return False
        self._holds.settle(hold, hold.amount)
        return True

    async def _write_later(self, hold: Hold, change: Callable[..., Any], *arguments: Any) -> None:
        try:
            while True:
                await asyncio.sleep(_AGAIN_SECONDS)
                try:
                    await self._desk.write(change, *arguments)
                except Unavailable:
                    continue
                self._holds.settle(hold, hold.amount)
                return
        except SQLAlchemyError as failure:
            log.error("a batch cannot be written down: %s", failure)
        finally:
            self._unwritten.discard(hold)

    def _keep(self, connection: Any, batch: Batch, charge: Charge) -> None:
        store.keep_batch(connection, batch)
        self._charges.keep(connection, charge)

    # --- asking about one -------------------------------------------------------------------------------------

    async def _ask(self, exchange: Exchange, who: Identity, id: str, method: str, path: str) -> None:
        """The provider is asked about it, and it is settled when it has ended."""
        batch: Batch | None = await self._desk.read(store.find_batch, who, id)
        if batch is None:
            raise NotFound(f"no batch {id!r}", remedy="GET /v1/batches lists this tenant's, as made through here")
        self._desk.permit(who, f"{batch.provider}/")
        target = await self._asking.target(batch.environment, batch.provider)
        reply = await self._asking.ask(method, target, f"/batches/{batch.id}{path}")
        headers: Headers = []
        if reply.object.get("id"):
            await self._desk.in_store(self._settling.saw, batch, reply.object)
            if batch.status == store.OPEN and has_ended(reply.object):
                # A client that polls asks no more once it has ended: this answer is to say what it cost.
                task = self._begin(self._settling.settle(batch, reply.object, target), batch)
                await asyncio.wait((task,), timeout=_SETTLED_SECONDS)
                batch = await self._desk.read(store.find_batch, who, id) or batch
        if batch.cost_nano is not None:
            headers.append(("x-lockgate-cost-usd", f"{to_usd(batch.cost_nano):.9f}"))
        pass_on(exchange, target, reply, headers)

    async def _list(self, exchange: Exchange, who: Identity) -> None:
        """From what is known here; those that have not ended are asked about."""
        given = parameters(exchange)
        limit = whole_number(given, "limit", _LISTED, _MAX_LISTED)
        page: list[Batch] = await self._desk.read(store.list_batches, who, after=given.get("after"), limit=limit)
        objects = await asyncio.gather(*(self._newest(batch) for batch in page[:limit]))
        exchange.respond_json(200, listed([*objects, *(batch.object for batch in page[limit:])], limit))

    async def _newest(self, batch: Batch) -> dict[str, Any]:
        if batch.status != store.OPEN:
            return batch.object
        try:
            target = await self._asking.target(batch.environment, batch.provider)
            told = (await self._asking.ask("GET", target, f"/batches/{batch.id}")).object
        except LockgateError:
            return batch.object  # as it was last seen
        if not told.get("id"):
            return batch.object
        await self._desk.in_store(self._settling.saw, batch, told)
        self._begin(self._settling.settle(batch, told, target), batch)
        return told

    def _begin(self, settling: Any, batch: Batch) -> asyncio.Task[None]:
        """Settle it beside: nobody has to wait until a long output is read."""

        async def run() -> None:
            try:
                await settling
            except (LockgateError, TimeoutError, SQLAlchemyError) as failure:
                log.warning("batch %s is not settled yet: %s", batch.id, failure)

        return self._beside(run())

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _not_written(told: str = "") -> Unavailable:
    return Unavailable(
        f"the store did not take the record of a batch that was asked for{told}; it is listed when the store is back",
        remedy="ask again in a while",
    )
