"""Machines of which one is busy, one idle, one out of reach and one lost: whatever they do, in whatever order.

The cap holds at each moment; and when they are at peace, exactly what was used is spent, and every machine's ledger
agrees with the spans.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from lockgate.errors import LimitExceeded
from lockgate.limits import store
from lockgate.limits.accounting import Accounting
from lockgate.limits.charges import Charge, Charges, Used
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.leases import Leases
from lockgate.limits.model import Account, Hold, Key, LeaseNeeded
from lockgate.limits.service import Ledger
from lockgate.limits.windows import seconds_left, window_of
from lockgate.storage.engine import Database
from lockgate.storage.schema import ledger, machines, spans, uncertain_charges
from lockgate.telemetry.context import new_trace_id
from lockgate.telemetry.model import CLIENT, Span
from lockgate.telemetry.table import SpanTable
from lockgate.testing import FakeClock

Step = tuple[Callable[["Fleet", str, int], None], str, int]

NOON = 1_795_003_200.0  # 2026-11-18
CAP = 10_000
MONTH = 4 * CAP


@dataclass(eq=False)
class Call:
    """``used`` is what its provider bills; ``state``: open | known | uncertain (charged at its bound)."""

    id: str
    at: float
    keys: tuple[Key, ...]
    bound: int
    used: int
    hold: Hold
    state: str = "open"
    is_batch: bool = False


class Machine:
    """A machine with one table; what has its name and a table of its own later is another."""

    def __init__(self, path: Path, name: str, control: Database, traces: Database, clock: FakeClock) -> None:
        self.name, self.state = name, "up"  # | away (it cannot reach the store) | gone (its table is lost)
        self.table = HoldTable(path)
        self.ledger = Ledger(control, clock, machine=name, lock=path.with_name(f"{name}.lock"))
        self.ledger.restore(self.table)
        self.leases = Leases(control, self.ledger, self.table, clock)
        self.charges = Charges(control, self.ledger, self.table, clock)
        self.accounting = Accounting(control, traces, self.ledger, self.table, self.charges, clock)
        self.calls: list[Call] = []
        self.corrected: set[Key] = set()  # of what it was charged with when it was lost

    def tick(self) -> None:
        self.charges.reap()
        self.leases.tick()
        self.ledger.persist(self.table)

    def settled(self, key: Key) -> int:
        return sum(balance.settled for balance in self.table.balances() if balance.key == key)


class Fleet:
    """Machines a, b and c on one database, and what they do: each step is of one of them, and ``n`` is its choice."""

    def __init__(self, control: Database, traces: Database) -> None:
        self.control, self.traces = control, traces
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.cap, self.made = FakeClock(NOON), CAP, 0
        for database, tables in ((control, (ledger, machines, uncertain_charges)), (traces, (spans,))):
            with database.write() as connection:
                for table in tables:
                    connection.execute(delete(table))
        self.spans = SpanTable(traces)
        self.every: list[Machine] = []
        self.lost: dict[str, tuple[Machine, int]] = {}  # by charge: who was lost, and what was known of its spending
        self.now = {name: self._machine(name) for name in "abc"}

    def close(self) -> None:
        self.spans.close()
        for one in self.every:
            one.table.close()
        self.folder.cleanup()

    def _machine(self, name: str) -> Machine:
        self.made += 1
        path = Path(self.folder.name, f"{self.made}.table")
        self.every.append(Machine(path, name, self.control, self.traces, self.clock))
        return self.every[-1]

    # --- calls ----------------------------------------------------------------------------------------------------

    def hold(self, name: str, n: int) -> None:
        one, now = self.now[name], self.clock()
        bound = 1 + n % 2_500
        accounts = [
            Account(name="tenant:prod:acme", window=window_of(now), cap=self.cap, leased=True),
            Account(name="project:prod", window=window_of(now, "month"), cap=MONTH, leased=True),
        ]
        self.made += 1
        while one.state != "gone":
            try:
                hold = one.table.hold(accounts, bound, now=now, tag=self.made)
            except LeaseNeeded as needed:
                if one.state == "away":
                    return
                try:
                    one.leases.grow(needed.short)
                except LimitExceeded:
                    return
            except LimitExceeded:
                return
            else:
                one.table.mark_sent(hold)
                keys = tuple(account.key for account in accounts)
                one.calls.append(Call(f"{self.made:016x}", now, keys, bound, bound * (n % 5) // 4, hold))
                corrected = self._corrected()
                for account in accounts:
                    assert self._exposed(account.key, corrected) <= (account.cap or 0)
                return

    def end(self, name: str, n: int) -> None:
        one, how = self.now[name], ("known", "known", "known", "bound", "batch")[n % 5]
        calls = [call for call in one.calls if call.state == "open"]
        if one.state == "gone" or not calls or (how == "batch" and one.state == "away"):
            return
        call = calls[n % len(calls)]
        assert one.table.settle(call.hold, call.used if how == "known" else call.bound)
        call.state = "known" if how == "known" else "uncertain"
        if how == "batch":
            call.is_batch = True
            charge = Charge(call.id, call.at, store.BATCH, tuple((key, call.bound) for key in call.keys), 0)
            with self.control.write() as connection:
                one.charges.keep(connection, charge)
        else:
            self._tell(one, call, call.used if how == "known" else call.bound, is_bound=how == "bound")

    def _tell(self, one: Machine, call: Call, cost: int, *, is_bound: bool = False) -> None:
        attributes: dict[str, str | bool] = {
            "lockgate.request_id": "r", "lockgate.environment": "prod", "lockgate.tenant": "acme",
        }  # fmt: skip
        if is_bound:
            attributes |= {"lockgate.cost_is_bound": True, "lockgate.machine": one.name}
        span = Span(
            trace_id=new_trace_id(), span_id=bytes.fromhex(call.id), parent_id=None, name="chat m", kind=CLIENT,
            start_ns=int(call.at * 1e9), end_ns=int(self.clock() * 1e9), model="openai/m", cost_nano=cost,
            attributes=attributes,
        )  # fmt: skip
        assert self.spans.write([span], lambda: 0.0) == 0

    # --- machines -------------------------------------------------------------------------------------------------

    def wait(self, name: str, n: int) -> None:
        """``n`` is how long; the others go on meanwhile."""
        self.clock.advance((1.0, 1.0, 61.0, 700.0, 700.0, 700.0, 4_000.0, 6 * 3_600.0)[n % 8])
        for other in "abc":
            if other != name:
                self.tick(other)

    def tick(self, name: str, n: int = 0) -> None:
        one = self.now[name]
        if one.state == "up":
            one.tick()
            with self.control.read() as connection:
                charged = set(connection.execute(select(uncertain_charges.c.id)).scalars())
            for call in one.calls:
                if call.state == "open" and call.id in charged:
                    call.state = "uncertain"  # it took too long: it is charged, and will leave no span

    def leave(self, name: str, n: int) -> None:
        one = self.now[name]
        if one.state == "up" and name != "c":  # somebody stays
            if n % 2:  # it is stopped, and gives back its leases
                self.tick(name)
                one.leases.tick(leaves=True)
            one.state = "away"

    def come_back(self, name: str, n: int) -> None:
        if self.now[name].state == "away":
            self.now[name].state = "up"

    def lose(self, name: str, n: int) -> None:
        if name != "c":
            self.now[name].state = "gone"

    def come_back_without_its_table(self, name: str, n: int) -> None:
        if self.now[name].state == "gone":
            self.now[name] = self._machine(name)
            self._see_lost(before=True)

    def change_the_cap(self, name: str, n: int) -> None:
        self.cap = CAP // (1, 1, 2, 4)[n % 4]

    # --- what follows of it ---------------------------------------------------------------------------------------

    def reconcile(self, name: str, n: int = 0) -> None:
        if self.now[name].state == "up":
            self.now[name].accounting.reconcile()
            self._see_lost()

    def correct(self, name: str, n: int = 0) -> None:
        one = self.now[name]
        if one.state == "up":
            one.accounting.note()
            one.charges.correct_all(self._figure)
            self._correct_lost(one)

    def end_batches(self, name: str, n: int = 0) -> None:
        one = self.now[name]
        for maker in self.every if one.state == "up" else ():
            if one.charges.reaches(maker.name):
                for call in maker.calls:
                    if call.is_batch:
                        one.charges.correct(call.id, Used(call.used, 0))
                        call.is_batch, call.state = False, "known"
                        self._tell(maker, call, call.used)

    def _figure(self, charge: Charge) -> Used | None:
        if charge.reason in (store.LOST, store.BATCH):
            return None
        return next(Used(call.used, 0) for one in self.every for call in one.calls if call.id == charge.id)

    def _correct_lost(self, one: Machine) -> None:
        for charge in one.charges.open():
            if charge.reason == store.LOST and self.lost[charge.id][0].state == "gone":
                lost, known = self.lost[charge.id]
                key = charge.parts[0][0]
                under_way = sum(call.used for call in lost.calls if call.state == "open" and key in call.keys)
                one.charges.correct(charge.id, Used(lost.settled(key) + under_way - known, 0))
                lost.corrected.add(key)

    def _see_lost(self, *, before: bool = False) -> None:
        """Keep who was charged as lost, and with what at first; ``before``: it is back, with another table."""
        with self.control.read() as connection:
            for row in connection.execute(select(uncertain_charges).where(uncertain_charges.c.reason == store.LOST)):
                if row.id not in self.lost:
                    account, window, unit, charged = row.parts[0]
                    rows = store.of_account(connection, (account, window, unit))
                    granted = next(one.granted or 0 for one in rows if one.machine == row.machine)
                    named = [one for one in self.every if one.name == row.machine]
                    self.lost[row.id] = named[-2 if before else -1], granted - charged

    def _corrected(self) -> dict[str, set[Key]]:
        """The accounts on which each charge is corrected."""
        wanted = uncertain_charges.c.corrected_at.is_not(None)
        with self.control.read() as connection:
            rows = connection.execute(select(uncertain_charges).where(wanted)).all()
        return {row.id: {(account, window, unit) for account, window, unit, _ in row.parts} for row in rows}

    def _cost(self, one: Machine, call: Call, key: Key, corrected: dict[str, set[Key]]) -> int:
        """What the call stands at."""
        is_known = call.state == "known" or key in corrected.get(call.id, ())
        is_known |= call.state == "open" and one.state == "gone" and key in one.corrected
        return call.used if is_known else call.bound

    def _exposed(self, key: Key, corrected: dict[str, set[Key]]) -> int:
        return sum(
            self._cost(one, call, key, corrected) for one in self.every for call in one.calls if key in call.keys
        )

    def make_peace(self) -> None:
        """All that can comes back, what is under way ends, and what is not known is put right."""
        up = list(self.now.values())
        for one in up:
            one.state = "up" if one.state == "away" else one.state
            for call in one.calls:
                if one.state == "up" and call.state == "open":
                    assert one.table.settle(call.hold, call.used)
                    call.state = "known"
                    self._tell(one, call, call.used)
        up = [one for one in up if one.state == "up"]
        for _ in range(2):
            self.clock.advance(store.LOST_SECONDS + 60)
            for one in up:
                self.tick(one.name)
        for one in up:
            self._agrees(one)
        for one in up:
            self.end_batches(one.name)
            self.correct(one.name)
        self.clock.advance(70)
        for one in up:
            self.tick(one.name)
        corrected = self._corrected()
        spent: dict[Key, int] = {}
        with self.control.read() as connection:
            for row in store.in_windows(connection, self.clock()):
                spent[row.key] = spent.get(row.key, 0) + row.settled
        for key, total in spent.items():
            assert total == self._exposed(key, corrected), key
        for one in up:
            self._agrees(one)

    def _agrees(self, one: Machine) -> None:
        lines = one.accounting.reconcile()
        self._see_lost()
        for line in lines:
            if seconds_left(line.window, self.clock()):  # what is lost after its window is charged to nobody
                assert line.agrees, line
                assert self.lost or line.difference == 0, line


STEPS = [Fleet.hold] * 6 + [Fleet.end] * 5 + [Fleet.wait] * 3 + [
    Fleet.tick, Fleet.leave, Fleet.come_back, Fleet.lose, Fleet.come_back_without_its_table, Fleet.change_the_cap,
    Fleet.reconcile, Fleet.correct, Fleet.end_batches,
]  # fmt: skip
"""One of these at each step."""


@pytest.mark.parametrize("database_factory", ["postgresql"], indirect=True)
def test_the_cap_holds_and_in_the_end_what_was_used_is_spent(control: Database, traces: Database) -> None:
    names = st.sampled_from("aaaabc")  # one is busy
    steps = st.lists(st.tuples(st.sampled_from(STEPS), names, st.integers(0, 9_999)), min_size=40, max_size=60)

    @settings(max_examples=40)
    @given(steps, steps)
    def both_hold(before: list[Step], after: list[Step]) -> None:
        fleet = Fleet(control, traces)
        try:
            for part in (before, after):
                for step, name, n in part:
                    step(fleet, name, n)
                fleet.make_peace()
        finally:
            fleet.close()

    both_hold()
