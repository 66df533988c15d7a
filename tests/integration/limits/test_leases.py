"""Several machines spend one cap: never more than it, whoever dies, and nothing is stranded for long."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from lockgate.errors import LimitExceeded, Unavailable
from lockgate.limits.charges import Charges
from lockgate.limits.holdtable import STALE_SECONDS, HoldTable
from lockgate.limits.leases import IDLE_SECONDS, Leases
from lockgate.limits.model import Account, Hold, LeaseNeeded
from lockgate.limits.service import SESSION_IDLE_SECONDS, Ledger
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock

NOON = 1_795_003_200.0
CAP = 10_000
ACCOUNT = Account(name="tenant:prod:acme", window="2026-11-18", cap=CAP, leased=True)
SESSION = Account(name="session:prod:acme/chat", window="", cap=CAP, leased=True)
TOKENS = Account(name="tenant:prod:acme", window="2026-11-18", cap=CAP, unit="tokens", leased=True)


class Machine:
    """A machine with a table of its own, and the database that all share."""

    def __init__(self, folder: Path, name: str, control: Database, clock: FakeClock) -> None:
        self.table = HoldTable(folder / f"{name}.table")
        self.ledger = Ledger(control, clock, machine=name, lock=folder / f"{name}.lock")
        self.leases = Leases(control, self.ledger, self.table, clock)
        self.clock = clock
        self.table.restore([])

    def hold(self, amount: int, *accounts: Account, tokens: int = 0) -> Hold:
        while True:
            try:
                return self.table.hold(accounts or (ACCOUNT,), amount, tokens=tokens, now=self.clock())
            except LeaseNeeded as needed:
                self.leases.grow(needed.short)

    def spent(self) -> int:
        return sum(balance.settled + balance.held for balance in self.table.balances() if balance.unit == "usd")


@pytest.fixture
def machine(tmp_path: Path, control: Database) -> Iterator[Callable[[str], Machine]]:
    made: list[Machine] = []
    clock = FakeClock(NOON)

    def make(name: str) -> Machine:
        made.append(Machine(tmp_path, name, control, clock))
        return made[-1]

    yield make
    for one in made:
        one.table.close()


def test_two_machines_never_pass_the_cap_and_use_nearly_all_of_it(machine: Callable[[str], Machine]) -> None:
    both = [machine("a"), machine("b")]
    chance = random.Random(7)
    refused = 0
    while refused < 20:
        one = chance.choice(both)
        try:
            hold = one.hold(100)
        except LimitExceeded:
            refused += 1
            for other in both:
                other.leases.tick()
                one.clock.advance(1.0)
            continue
        one.table.settle(hold, chance.randrange(101))
        assert sum(each.spent() for each in both) <= CAP
    assert sum(each.spent() for each in both) > CAP - 200  # the last call may have been turned away with 100 left


def test_all_units_of_a_call_are_leased_at_once(machine: Callable[[str], Machine]) -> None:
    one = machine("a")
    with pytest.raises(LeaseNeeded) as needed:
        one.table.hold([ACCOUNT, TOKENS], 10, tokens=20, now=NOON)
    assert [(account.unit, amount) for account, amount in needed.value.short] == [("usd", 10), ("tokens", 20)]
    one.hold(10, ACCOUNT, TOKENS, tokens=20)
    assert {balance.unit: balance.held for balance in one.table.balances()} == {"usd": 10, "tokens": 20}


def test_a_lost_machines_slice_stays_spent(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    lost, other = machine("a"), machine("b")
    lost.table.settle(lost.hold(100), 100)
    taken = sum(balance.granted or 0 for balance in lost.table.balances())
    assert taken > 100
    with pytest.raises(LimitExceeded, match="leased to machines"):
        other.hold(CAP - taken + 1)
    other.hold(CAP - taken)
    again = HoldTable(tmp_path / "again.table")  # the machine comes back without its table
    lost.ledger.restore(again)
    assert [(balance.settled, balance.granted) for balance in again.balances()] == [(taken, None)]
    again.close()


def test_a_death_between_store_and_table_strands_nothing(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")
    one.table.settle(one.hold(100), 100)
    one.leases._lease(ACCOUNT, 9_000, NOON)  # and it dies before the table hears of it
    with pytest.raises(LimitExceeded) as refused:
        other.hold(2_000)
    assert refused.value.retry_after == 1.0
    assert one.leases.tick() == 1
    other.hold(2_000)
    assert one.spent() + other.spent() == 2_100


def test_unused_slices_go_back_when_the_cap_is_near(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")
    one.table.settle(one.hold(8_000), 10)  # a dear bound, a cheap call
    with pytest.raises(LimitExceeded):
        other.hold(5_000)
    assert one.leases.tick() == 1  # a slice is enough to go on
    other.hold(8_900)
    with pytest.raises(LimitExceeded):
        other.hold(1_090)
    assert one.leases.tick() == 1
    other.hold(1_090)
    assert one.spent() + other.spent() == CAP


def test_a_slice_is_kept_while_calls_come_and_goes_back_when_none_did_for_a_minute(
    machine: Callable[[str], Machine],
) -> None:
    one, other = machine("a"), machine("b")
    one.table.settle(one.hold(100), 100)
    one.clock.advance(IDLE_SECONDS - 1)
    assert one.leases.tick() == 0
    one.clock.advance(2)
    assert one.leases.tick() == 1
    assert one.leases.tick() == 0
    other.hold(CAP - 100)


def test_a_machine_that_leaves_leases_no_more_than_it_spent_and_holds(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")
    one.table.settle(one.hold(300), 300)
    held = one.hold(200)
    one.ledger.persist(one.table)
    one.leases.tick(leaves=True)
    other.table.release(other.hold(CAP - 500))
    with pytest.raises(LimitExceeded):
        other.hold(CAP - 499)
    one.table.release(held)


def test_a_cap_that_is_lowered_below_what_is_leased_is_not_passed(machine: Callable[[str], Machine]) -> None:
    both = [machine("a"), machine("b")]
    for one in both:
        one.table.settle(one.hold(1_000), 1_000)  # each has leased a slice more than that
    lower = msgspec.structs.replace(ACCOUNT, cap=2_100)
    for one in both:
        with contextlib.suppress(LimitExceeded):
            while True:
                one.table.settle(one.hold(20, lower), 20)
    assert sum(one.spent() for one in both) <= 2_100
    both[0].leases.tick()
    both[1].table.settle(both[1].hold(2_100 - sum(one.spent() for one in both), lower), 0)


def test_what_ends_for_less_than_it_held_is_not_spent_again_of_a_cap_that_was_lowered(
    machine: Callable[[str], Machine],
) -> None:
    one, other = machine("a"), machine("b")
    hold = one.hold(4_000)
    other.hold(1_000)
    lower = msgspec.structs.replace(ACCOUNT, cap=5_000)
    with pytest.raises(LimitExceeded):
        one.hold(1, lower)
    one.table.settle(hold, 3_000)
    one.table.release(one.hold(500, lower))
    with pytest.raises(LimitExceeded):
        one.hold(1_001, lower)


def test_a_call_for_which_too_little_is_left_to_lease_counts_as_refused(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")
    one.hold(8_000)
    with pytest.raises(LimitExceeded):
        other.hold(3_000)
    assert [balance.refused for balance in other.table.balances()] == [1]


def test_a_session_is_over_when_it_was_idle_on_all_machines(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")

    def pass_time(*machines: Machine) -> None:
        for _ in range(2):
            one.clock.advance(SESSION_IDLE_SECONDS / 2 + 1)
            for each in machines:
                each.leases.tick()
                each.ledger.persist(each.table)

    one.table.settle(one.hold(6_000, SESSION), 6_000)
    other.table.settle(other.hold(1_000, SESSION), 1_000)
    other.clock.advance(SESSION_IDLE_SECONDS / 2)
    other.table.settle(other.hold(1_000, SESSION), 1_000)
    other.clock.advance(SESSION_IDLE_SECONDS / 2 + 1)
    for each in (one, other):
        each.leases.tick()
        each.ledger.persist(each.table)
    assert one.table.balances() == []
    with pytest.raises(LimitExceeded):  # it goes on over there
        one.hold(5_000, SESSION)
    pass_time(one, other)
    one.table.settle(one.hold(9_000, SESSION), 9_000)
    with pytest.raises(LimitExceeded):
        other.hold(2_000, SESSION)


def test_what_is_held_is_not_given_back(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")
    hold = one.hold(9_500)
    one.leases.tick()
    with pytest.raises(LimitExceeded):
        other.hold(501)
    one.table.settle(hold, 9_500)
    assert one.spent() == 9_500


def test_without_the_store_only_what_was_leased_is_spent(
    machine: Callable[[str], Machine], control: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    one = machine("a")
    one.hold(100)  # leases 100 and a slice of 500
    monkeypatch.setattr(control, "write", lambda: (_ for _ in ()).throw(OperationalError("", None, Exception("away"))))
    one.hold(400)
    with pytest.raises(Unavailable, match="the budget's store does not answer"):
        one.hold(400)


def test_machines_are_counted_while_they_are_seen(machine: Callable[[str], Machine]) -> None:
    one, other = machine("a"), machine("b")
    one.leases.tick()
    other.leases.tick()
    one.leases.tick()
    assert (one.leases.machines, other.leases.machines) == (2, 2)
    one.clock.advance(11.0)
    one.leases.tick()
    assert one.leases.machines == 1


def test_threads_of_two_machines_hammer_one_cap(machine: Callable[[str], Machine]) -> None:
    both = [machine("a"), machine("b")]
    wrong: list[BaseException] = []

    def work(one: Machine, seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(60):
                try:
                    hold = one.hold(chance.randrange(1, 200))
                except LimitExceeded:
                    one.leases.tick()
                    continue
                one.table.settle(hold, chance.randrange(hold.amount + 1))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(one, seed)) for seed, one in enumerate(both * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert 0 < sum(one.spent() for one in both) <= CAP


def test_what_the_dead_are_charged_with_is_written_down_when_the_store_is_back(
    machine: Callable[[str], Machine], control: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    one = machine("a")
    charges = Charges(control, one.ledger, one.table, one.clock)
    one.table.mark_sent(one.hold(100))
    one.clock.advance(STALE_SECONDS + 1)  # as good as dead
    with monkeypatch.context() as away:
        away.setattr(control, "write", lambda: (_ for _ in ()).throw(OperationalError("", None, Exception("away"))))
        with pytest.raises(OperationalError):
            charges.reap()
    assert one.table.balances()[0].settled == 100
    assert charges.reap() == 0
    assert [(charge.reason, charge.parts) for charge in charges.open()] == [("died", ((ACCOUNT.key, 100),))]
    charges.reap()
    assert len(charges.open()) == 1
