"""The recorded calls, read from the spans; and the ledger held against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from sqlalchemy import select

from lockgate.clock import Clock, system
from lockgate.limits import store
from lockgate.limits.charges import Charges
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Key
from lockgate.limits.reconcile import Line, Paid, compare
from lockgate.limits.service import Ledger
from lockgate.limits.windows import bounds
from lockgate.storage.engine import Database
from lockgate.storage.schema import spans

DAY = 86_400.0

_CLIENT = 3


class Accounting:
    """Reads calls from the traces, and compares."""

    def __init__(
        self,
        control: Database,
        traces: Database,
        ledger: Ledger,
        table: HoldTable,
        charges: Charges,
        clock: Clock = system,
        *,
        counts: Callable[[str, str], bool] = lambda account, window: True,
    ) -> None:
        """``counts`` says whether calls of now count on an account, in windows of that sort."""
        self._control = control
        self._traces = traces
        self._ledger = ledger
        self._table = table
        self._charges = charges
        self._clock = clock
        self._counts = counts

    @property
    def keeps_traces(self) -> bool:
        """Whether this is one of several machines, and the traces here are of its own calls alone."""
        return bool(self._ledger.machine) and self._traces.dialect != "postgresql"

    def calls(self, begin: float, end: float) -> Iterator[Paid]:
        """The model calls that began in this time and cost something, oldest first."""
        yield from self._paid(
            spans.c.start_ns >= int(begin * 1e9),
            spans.c.start_ns < int(end * 1e9),
            spans.c.kind == _CLIENT,
            spans.c.cost_nano > 0,
        )

    def call(self, span_id: str, at: float) -> Paid | None:
        """The call of this span (16 hex), made about that time."""
        near = (spans.c.start_ns > int((at - DAY) * 1e9), spans.c.start_ns < int((at + DAY) * 1e9))
        return next(self._paid(spans.c.span_id == bytes.fromhex(span_id), *near), None)

    def _paid(self, *wanted: Any) -> Iterator[Paid]:
        columns = (
            spans.c.span_id, spans.c.start_ns, spans.c.end_ns, spans.c.run_id, spans.c.agent, spans.c.model,
            spans.c.cost_nano, spans.c.input_tokens, spans.c.output_tokens, spans.c.attributes,
        )  # fmt: skip
        with self._traces.read() as connection:
            for row in connection.execute(select(*columns).where(*wanted).order_by(spans.c.start_ns)):
                attributes: dict[str, Any] = msgspec.json.decode(row.attributes)
                if "lockgate.request_id" not in attributes:
                    continue  # no call of the gateway's: an eval's own, or a span from elsewhere
                yield Paid(
                    span_id=bytes(row.span_id).hex(),
                    at=row.start_ns / 1e9,
                    ended=row.end_ns / 1e9,
                    environment=attributes.get("lockgate.environment", ""),
                    tenant=attributes.get("lockgate.tenant", ""),
                    agent=row.agent,
                    key=attributes.get("lockgate.key"),
                    run_id=row.run_id,
                    model=row.model,
                    cost_nano=row.cost_nano,
                    tokens=row.input_tokens + row.output_tokens,
                    task=attributes.get("lockgate.task"),
                    labels=tuple(attributes.get("lockgate.labels") or ()),
                    session=attributes.get("session.id"),
                    is_bound=bool(attributes.get("lockgate.cost_is_bound")),
                    response_id=attributes.get("gen_ai.response.id"),
                    machine=attributes.get("lockgate.machine"),
                )

    def note(self, days: int = 2) -> int:
        """Write down the calls of which only the bound is known, so that they can be corrected. How many were new."""
        now = self._clock()
        self._ledger.persist(self._table)
        return self._charges.note(call for call in self.calls(now - days * DAY, now + 1) if call.is_bound)

    def reconcile(self, days: int = 2) -> list[Line]:
        """Every account of USD in the windows of the last days, with what the spans say of it."""
        now = self._clock()
        self._ledger.persist(self._table)
        if self._ledger.machine:
            self._charge_lost(now)
        with self._control.write() as connection:
            is_traced = store.say_who_keeps_traces(connection, self._ledger.machine, self.keeps_traces)
        settled: dict[Key, int] = {}
        lives: dict[Key, tuple[float, float]] = {}
        with self._control.read() as connection:
            rows = store.since(connection, now - (days + 1) * DAY)
            beside = self._charges.beside_spans(connection, is_traced, now)
        for row in rows:
            if not is_traced(row.owner):
                continue
            settled[row.key] = settled.get(row.key, 0) + row.settled
            began, ended = lives.get(row.key, (row.created_at, row.updated_at))
            lives[row.key] = min(began, row.created_at), max(ended, row.updated_at)
        zones = Counter((account, window.partition(" ")[0]) for account, window, _ in lives)
        for key, (began, _) in lives.items():
            account, day = key[0], key[1].partition(" ")[0]
            if self._counts(account, key[1]):
                # counted with a limit and without one, unless days began elsewhere until today
                always = account.startswith(("tenant:", "agent:")) and len(day) == 10 and zones[account, day] == 1
                lives[key] = 0.0 if always else began, float("inf")
        begin = now - days * DAY
        for _, window, _ in settled:
            if window and bounds(window)[1] > now - days * DAY:
                begin = min(begin, bounds(window)[0])
        moving = {balance.key: balance.held for balance in self._table.balances()}
        for key, amount in beside.moving:
            moving[key] = moving.get(key, 0) + amount
        return compare(
            settled,
            self.calls(begin, now + 1),
            beside.untraced,
            corrected=beside.corrected,
            moving=moving,
            since=now - days * DAY,
            now=now,
            lives=lives,
        )

    def _charge_lost(self, now: float) -> None:
        """Charge lost machines with all that they had leased: calls that were under way there left no span, so nobody
        can tell here how much of it they cost. Who sees their provider's bill can: ``lockgate budgets correct``."""
        with self._control.write() as connection:
            living = store.living_machines(connection, now - store.LOST_SECONDS)
            for row in store.in_windows(connection, now):
                if row.unused and row.machine not in living and row.machine != self._ledger.machine:
                    store.charge_slice(connection, row.key, row.machine, at=now)
