"""What a machine that is lost had leased goes back, as far as the spans say that it was not spent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockgate.errors import LimitExceeded
from lockgate.limits.accounting import LOST_SECONDS, Accounting
from lockgate.limits.charges import Charges
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.leases import Leases
from lockgate.limits.model import Account, Hold, LeaseNeeded
from lockgate.limits.service import Ledger
from lockgate.storage.engine import Database
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import CLIENT, Span
from lockgate.telemetry.writer import SpanWriter
from lockgate.testing import FakeClock

NOON = 1_795_003_200.0  # 2026-11-18
CAP = 10_000
ACCOUNT = Account(name="tenant:prod:acme", window="2026-11-18", cap=CAP, leased=True)

pytestmark = pytest.mark.parametrize("database_factory", ["postgresql"], indirect=True)


class Machine:
    """A machine with a table of its own, and the databases that all share."""

    def __init__(self, folder: Path, name: str, control: Database, traces: Database, clock: FakeClock) -> None:
        self.table = HoldTable(folder / f"{name}.table")
        self.table.restore([])
        self.ledger = Ledger(control, clock, machine=name, lock=folder / f"{name}.lock")
        self.leases = Leases(control, self.ledger, self.table, clock)
        charges = Charges(control, self.ledger, self.table, clock)
        self.accounting = Accounting(control, traces, self.ledger, self.table, charges, clock)
        self.spans = SpanWriter(traces)
        self.clock = clock

    def hold(self, amount: int) -> Hold:
        while True:
            try:
                return self.table.hold((ACCOUNT,), amount, now=self.clock())
            except LeaseNeeded as needed:
                self.leases.grow(needed.short)

    def call(self, cost: int) -> None:
        """One call that cost this, in the table and in the spans."""
        self.table.settle(self.hold(cost), cost)
        at = int(self.clock() * 1e9)
        told = {"lockgate.request_id": "r", "lockgate.environment": "prod", "lockgate.tenant": "acme"}
        self.spans.emit(
            Span(
                trace_id=new_trace_id(), span_id=new_span_id(), parent_id=None, name="chat m", kind=CLIENT,
                start_ns=at, end_ns=at + 1, model="openai/m", cost_nano=cost, attributes=told,
            )
        )  # fmt: skip

    def write_down(self) -> None:
        self.ledger.persist(self.table)

    def agrees(self) -> bool:
        assert self.spans.flush()
        return all(line.agrees for line in self.accounting.reconcile())


@pytest.fixture
def machine(tmp_path: Path, control: Database, traces: Database) -> Iterator[Callable[[str], Machine]]:
    made: list[Machine] = []
    clock = FakeClock(NOON)

    def make(name: str) -> Machine:
        made.append(Machine(tmp_path, name, control, traces, clock))
        made[-1].leases.tick()
        return made[-1]

    yield make
    for one in made:
        one.spans.close()
        one.table.close()


def test_what_the_spans_say_was_not_spent_goes_back(machine: Callable[[str], Machine]) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(100)
    lost.write_down()
    lost.call(200)  # it is lost before this is written down
    assert lost.spans.flush()
    other.call(50)
    with pytest.raises(LimitExceeded, match="leased to machines"):
        other.hold(CAP - 350)
    other.clock.advance(LOST_SECONDS + 60)
    other.leases.tick()
    assert other.agrees()
    with pytest.raises(LimitExceeded):
        other.hold(CAP - 350 + 1)
    other.table.release(other.hold(CAP - 350))  # to the last cent, and no further


def test_taking_back_twice_changes_nothing(machine: Callable[[str], Machine]) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(300)
    assert lost.spans.flush()
    other.clock.advance(LOST_SECONDS + 60)
    other.leases.tick()
    assert other.agrees()
    assert other.agrees()
    other.hold(CAP - 300)


def test_a_machine_that_was_just_seen_keeps_its_slice(machine: Callable[[str], Machine]) -> None:
    silent, other = machine("a"), machine("b")
    silent.call(100)
    granted = sum(balance.granted or 0 for balance in silent.table.balances())
    other.clock.advance(LOST_SECONDS - 60)
    other.leases.tick()
    other.agrees()
    with pytest.raises(LimitExceeded):
        other.hold(CAP - granted + 1)


def test_a_lost_machine_that_comes_back_counts_what_it_spent(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(300)
    lost.write_down()
    assert lost.spans.flush()
    other.clock.advance(LOST_SECONDS + 60)
    other.leases.tick()
    assert other.agrees()
    again = HoldTable(tmp_path / "again.table")
    lost.ledger.restore(again)
    assert [balance.settled for balance in again.balances()] == [300]
    again.close()
