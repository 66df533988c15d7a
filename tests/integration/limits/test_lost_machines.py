"""A machine that is lost is charged with all that it had leased, until somebody can tell what it spent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, func, select, text

from lockgate.errors import LimitExceeded, NotFound
from lockgate.limits.accounting import Accounting
from lockgate.limits.charges import Charge, Charges, Used
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.leases import Leases
from lockgate.limits.model import Account, Hold, LeaseNeeded, Unit
from lockgate.limits.service import Ledger
from lockgate.limits.store import BATCH, LOST_SECONDS
from lockgate.storage.engine import Database, open_database
from lockgate.storage.schema import uncertain_charges
from lockgate.telemetry.context import new_span_id, new_trace_id
from lockgate.telemetry.model import CLIENT, Span
from lockgate.telemetry.table import SpanTable
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
        self.ledger = Ledger(control, clock, machine=name, lock=folder / f"{name}.lock")
        self.ledger.restore(self.table)
        self.leases = Leases(control, self.ledger, self.table, clock)
        self.charges = Charges(control, self.ledger, self.table, clock)
        self.accounting = Accounting(control, traces, self.ledger, self.table, self.charges, clock)
        self.spans = SpanWriter(SpanTable(traces))
        self.control = control
        self.clock = clock

    def hold(self, amount: int) -> Hold:
        while True:
            try:
                return self.table.hold((ACCOUNT,), amount, now=self.clock())
            except LeaseNeeded as needed:
                self.leases.grow(needed.short)

    def call(self, cost: int, *, is_bound: bool = False, seconds: float = 0.0) -> None:
        """One call that cost this and took so long, in the table and in the spans."""
        self.table.settle(self.hold(cost), cost)
        ended = int(self.clock() * 1e9)
        at = ended - int(seconds * 1e9)
        told: dict[str, str | bool] = {
            "lockgate.request_id": "r",
            "lockgate.environment": "prod",
            "lockgate.tenant": "acme",
        }
        if is_bound:
            told |= {"lockgate.cost_is_bound": True, "lockgate.machine": self.ledger.machine}
        self.spans.emit(
            Span(
                trace_id=new_trace_id(), span_id=new_span_id(), parent_id=None, name="chat m", kind=CLIENT,
                start_ns=at, end_ns=ended, model="openai/m", cost_nano=cost, attributes=told,
            )
        )  # fmt: skip

    def batch(self, bound: int) -> str:
        """A batch under way, charged at its bound; gives the charge's name."""
        self.table.settle(self.hold(bound), bound)
        charge = Charge(f"batch {bound}", self.clock(), BATCH, ((ACCOUNT.key, bound),), 0)
        with self.control.write() as connection:
            self.charges.keep(connection, charge)
        return charge.id

    def leased(self) -> int:
        return sum(balance.granted or 0 for balance in self.table.balances())

    def write_down(self) -> None:
        self.ledger.persist(self.table)

    def agrees(self) -> bool:
        assert self.spans.flush(60)
        return all(line.agrees for line in self.accounting.reconcile())


@pytest.fixture
def machine(tmp_path: Path, control: Database, traces: Database) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []
    clock = FakeClock(NOON)

    def make(name: str, own: Path | None = None) -> Machine:
        """``own``: where its traces are, if not where those of the others are."""
        made.append(Machine(tmp_path, name, control, open_database(own, "traces") if own else traces, clock))
        made[-1].leases.tick()
        return made[-1]

    yield make
    for one in made:
        one.spans.close()
        one.table.close()


def settled(one: Machine) -> int:
    """Over all machines, as the store has it."""
    return sum(balance.settled for balance in one.ledger.balances(None))


def lose(lost: Machine, other: Machine) -> None:
    """``lost`` is not seen any more; the others go on."""
    other.clock.advance(LOST_SECONDS + 60)
    other.leases.tick()


def test_calls_that_were_under_way_on_a_lost_machine_cannot_pass_the_cap(machine: Callable[[str], Machine]) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(100)
    lost.write_down()
    lost.table.mark_sent(lost.hold(400))  # it is lost now, and its provider bills this: nobody here heard of it
    assert lost.spans.flush(60)
    other.call(50)
    lose(lost, other)
    assert other.agrees()
    spent = 0
    with contextlib.suppress(LimitExceeded):
        while spent < CAP:
            other.call(100)
            spent += 100
    assert spent > CAP - 2_000  # one slice, and what is left of another
    assert 100 + 400 + 50 + spent <= CAP


def test_what_it_really_spent_is_put_right_to_the_last_cent(machine: Callable[[str], Machine]) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(100)
    lost.write_down()
    lost.call(200)  # it is lost before this is written down
    assert lost.spans.flush(60)
    other.call(50)
    lose(lost, other)
    assert other.agrees()
    (charge,) = other.charges.open()
    assert (charge.reason, charge.machine) == ("lost", "a")
    other.charges.correct(charge.id, Used(200, 0))  # as the provider's bill has it
    assert other.charges.open() == []
    assert other.agrees()
    assert settled(other) == 350
    with pytest.raises(LimitExceeded):
        other.hold(CAP - 350 + 1)
    other.table.release(other.hold(CAP - 350))


def test_calls_and_tokens_that_a_lost_machine_had_leased_are_given_back_too(machine: Callable[[str], Machine]) -> None:
    lost, other = machine("a"), machine("b")
    units: tuple[Unit, ...] = ("calls", "tokens")
    accounts = [msgspec.structs.replace(ACCOUNT, window="", unit=unit) for unit in units]
    with pytest.raises(LeaseNeeded) as needed:
        lost.table.hold(accounts, 0, tokens=100, now=lost.clock())
    lost.leases.grow(needed.value.short)
    lose(lost, other)
    assert other.agrees()
    for charge in other.charges.open():
        other.charges.correct(charge.id, Used(0, 40, 1))
    assert {one.unit: one.settled for one in other.ledger.balances(None)} == {"calls": 1, "tokens": 40}


def test_it_is_charged_once(machine: Callable[[str], Machine]) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(300)
    lost.write_down()
    assert lost.spans.flush(60)
    lose(lost, other)
    assert other.agrees()
    assert other.agrees()
    assert len(other.charges.open()) == 1
    leased = sum(balance.granted or 0 for balance in lost.table.balances())
    assert settled(other) == leased


def test_a_machine_that_was_just_seen_is_not_lost(machine: Callable[[str], Machine]) -> None:
    silent, other = machine("a"), machine("b")
    silent.call(100)
    granted = sum(balance.granted or 0 for balance in silent.table.balances())
    other.clock.advance(LOST_SECONDS - 60)
    other.leases.tick()
    other.agrees()
    assert other.charges.open() == []
    with pytest.raises(LimitExceeded):
        other.hold(CAP - granted + 1)


def test_a_machine_that_was_only_out_of_reach_says_what_it_spent(machine: Callable[[str], Machine]) -> None:
    away, other = machine("a"), machine("b")
    away.call(300)
    away.write_down()
    lose(away, other)
    assert other.agrees()
    away.call(100)  # it served on, from what it had leased
    assert len(other.charges.open()) == 1
    away.write_down()
    away.leases.tick()  # and is seen again
    assert away.charges.open() == other.charges.open() == []
    assert settled(other) == 400
    assert away.agrees()
    assert other.agrees()


def test_one_that_was_out_of_reach_and_spent_all_that_it_had_leased_is_not_charged_twice(
    machine: Callable[[str], Machine],
) -> None:
    away, other = machine("a"), machine("b")
    away.call(300)
    away.write_down()
    lose(away, other)
    assert other.agrees()
    away.call(away.leased() - 300)
    away.write_down()
    away.leases.tick()
    assert away.charges.open() == []


def test_one_that_was_out_of_reach_may_be_seen_again_because_it_leases_more(machine: Callable[[str], Machine]) -> None:
    away, other = machine("a"), machine("b")
    away.call(300)
    away.write_down()
    lose(away, other)
    assert other.agrees()
    away.call(away.leased())
    assert away.charges.open() == []
    away.leases.tick()
    assert away.agrees()


def test_one_that_comes_back_without_its_table_is_charged_and_can_be_corrected(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(300)
    lost.write_down()
    leased = sum(balance.granted or 0 for balance in lost.table.balances())
    lost.table.path.unlink()
    again = machine("a")
    assert [balance.settled for balance in again.table.balances()] == [leased]
    (charge,) = again.charges.open()
    again.charges.correct(charge.id, Used(0, 0))
    again.leases.tick()
    assert settled(other) == 300
    other.table.release(other.hold(CAP - 300))


def test_calls_at_their_bound_are_corrected_on_the_accounts_of_the_machine_that_made_them(
    machine: Callable[[str], Machine],
) -> None:
    quiet, busy = machine("a"), machine("b")
    quiet.call(100)
    for _ in range(4):
        busy.call(900, is_bound=True)
    assert busy.agrees()
    assert (quiet.accounting.note(), busy.accounting.note()) == (0, 4)
    assert quiet.charges.open() == []
    assert quiet.charges.elsewhere() == ["b"]
    with pytest.raises(NotFound, match="here"):
        quiet.charges.correct(busy.charges.open()[0].id, Used(300, 0))
    assert busy.charges.correct_all(lambda charge: Used(300, 0)) == 4
    assert [balance.settled for one in (quiet, busy) for balance in one.table.balances()] == [100, 1200]
    assert quiet.agrees()
    assert settled(busy) == 1300


def test_what_others_corrected_while_a_machine_was_away_stays_corrected_when_it_is_back(
    machine: Callable[[str], Machine],
) -> None:
    away, other = machine("a"), machine("b")
    away.call(50)
    charge = away.batch(9_000)
    away.write_down()
    lose(away, other)
    other.charges.correct(charge, Used(100, 0))
    assert settled(other) == 150
    other.table.release(other.hold(CAP - away.leased() + 8_900))
    away.write_down()
    away.leases.tick()
    away.write_down()
    assert settled(other) == 150
    assert [balance.settled for balance in away.table.balances()] == [150]
    other.leases.tick()
    away.table.release(away.hold(CAP - 150))


def test_what_others_leased_of_a_correction_is_not_spent_by_the_machine_that_comes_back(
    machine: Callable[[str], Machine],
) -> None:
    away, other = machine("a"), machine("b")
    charge = away.batch(9_000)
    leased = away.leased()
    away.write_down()
    lose(away, other)
    other.charges.correct(charge, Used(0, 0))
    hold = other.hold(CAP - leased + 9_000)
    away.leases.tick()
    away.table.release(away.hold(leased - 9_000))
    with pytest.raises(LimitExceeded):
        away.hold(leased - 9_000 + 1)
    other.table.release(hold)


@pytest.fixture
def without_its_table(machine: Callable[[str], Machine]) -> tuple[Machine, Machine]:
    """One that came back so, charged with what it had leased, and spends on; and another."""
    lost, other = machine("a"), machine("b")
    lost.call(300)
    lost.write_down()
    lost.table.path.unlink()
    again = machine("a")
    again.call(50)
    again.write_down()
    return again, other


def test_one_that_is_out_of_reach_later_stays_charged_with_what_its_lost_table_had_leased(
    without_its_table: tuple[Machine, Machine],
) -> None:
    away, other = without_its_table
    charges = away.charges.open()
    lose(away, other)
    assert other.agrees()  # and charges what it has leased since
    away.leases.tick()
    assert away.charges.open() == charges


def test_what_its_lost_table_had_leased_may_be_corrected_while_it_is_out_of_reach(
    without_its_table: tuple[Machine, Machine],
) -> None:
    away, other = without_its_table
    (charge,) = away.charges.open()
    lose(away, other)
    other.charges.correct(charge.id, Used(0, 0))
    away.leases.tick()
    away.write_down()
    assert settled(other) == 350
    assert [balance.settled for balance in away.table.balances()] == [350]


def test_two_machines_that_correct_a_charge_at_the_same_moment_do_it_once(
    machine: Callable[[str], Machine], control: Database
) -> None:
    lost, one, other = machine("a"), machine("b"), machine("c")
    lost.call(300)
    lost.write_down()
    lose(lost, one)
    other.leases.tick()
    assert one.agrees()
    (charge,) = one.charges.open()
    late: list[NotFound] = []

    def correct(charges: Charges) -> None:
        try:
            charges.correct(charge.id, Used(0, 0))
        except NotFound as error:
            late.append(error)

    threads = [threading.Thread(target=correct, args=(each.charges,)) for each in (one, other)]
    with control.write() as connection, control.engine.connect() as looking:
        connection.execute(select(uncertain_charges).with_for_update())
        for thread in threads:
            thread.start()
        waiting = select(func.count()).select_from(text("pg_locks")).where(text("not granted"))
        while looking.execute(waiting).scalar_one() < 2:  # both have found it open
            looking.rollback()
    for thread in threads:
        thread.join(60)
    assert len(late) == 1
    assert settled(one) == 300


def test_a_correction_that_could_not_be_written_down_is_not_made_twice(
    machine: Callable[[str], Machine], control: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, write = machine("a"), control.write
    charge = one.batch(900)

    @contextlib.contextmanager
    def failing() -> Iterator[Connection]:
        with write() as connection:
            yield connection
            raise ConnectionError

    with monkeypatch.context() as away:
        away.setattr(control, "write", failing)
        with pytest.raises(ConnectionError):
            one.charges.correct(charge, Used(500, 0))
    one.charges.correct(charge, Used(500, 0))
    assert [balance.settled for balance in one.table.balances()] == [500]


def test_another_machine_corrects_the_calls_of_one_that_went_and_had_leased_no_more(
    machine: Callable[[str], Machine],
) -> None:
    gone, other = machine("a"), machine("b")
    gone.call(900, is_bound=True)
    gone.clock.advance(120)
    gone.leases.tick()  # idle: it gives back what it does not use
    gone.write_down()
    assert gone.spans.flush(60)
    lose(gone, other)
    assert other.accounting.note() == 1
    assert other.charges.correct_all(lambda charge: Used(300, 0)) == 1
    assert settled(other) == 300
    assert other.agrees()


def test_single_calls_of_a_machine_that_was_lost_with_its_lease_are_not_corrected_apart(
    machine: Callable[[str], Machine],
) -> None:
    lost, other = machine("a"), machine("b")
    lost.call(100)
    lost.write_down()
    lost.call(900, is_bound=True)  # not written down: it is part of what was leased
    leased = sum(balance.granted or 0 for balance in lost.table.balances())
    assert lost.spans.flush(60)
    lose(lost, other)
    assert other.accounting.note() == 1
    assert other.charges.correct_all(lambda charge: Used(300, 0)) == 0
    assert other.agrees()
    assert [charge.reason for charge in other.charges.open()] == ["lost"]
    assert settled(other) == leased


def test_machines_with_traces_of_their_own_are_each_held_against_their_own_calls(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    one, other = machine("a", tmp_path / "a.db"), machine("b", tmp_path / "b.db")
    one.call(100)
    other.call(300)
    other.batch(500)
    other.call(900, is_bound=True)
    other.write_down()
    assert other.spans.flush(60)
    assert other.accounting.note() == 1
    other.charges.correct_all(lambda charge: Used(200, 0) if charge.reason == "no_usage" else None)
    assert one.agrees()
    assert other.agrees()
    one.clock.advance(61)
    one.table.adjust(ACCOUNT.key, 50)
    assert not one.agrees()
    assert other.agrees()


def test_a_machine_that_keeps_its_traces_to_itself_is_no_difference_to_those_that_share_theirs(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    alone, shared = machine("a", tmp_path / "a.db"), machine("b")
    alone.call(5_000)
    shared.call(100)
    assert alone.agrees()
    assert shared.agrees()
    shared.clock.advance(61)
    shared.table.adjust(ACCOUNT.key, 50)
    assert not shared.agrees()


def test_a_long_call_whose_machine_has_not_written_down_its_total_yet_is_no_difference(
    machine: Callable[..., Machine],
) -> None:
    one, other = machine("a"), machine("b")
    other.call(900, seconds=300)
    assert other.spans.flush(60)
    one.call(100)
    assert one.agrees()
    one.clock.advance(61)
    assert not one.agrees()
    other.write_down()
    assert one.agrees()
