"""The ledger carries totals over what the hold table does not survive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from lockgate.errors import LimitExceeded
from lockgate.limits import store
from lockgate.limits.charges import Charge, Charges, Used
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account
from lockgate.limits.service import RUN_IDLE_SECONDS, RUN_KEPT_SECONDS, WINDOW_GRACE_SECONDS, Ledger
from lockgate.limits.store import BATCH
from lockgate.storage import schema
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock

NOON = 1_795_003_200.0  # 2026-11-18T12:00:00Z
DAY = "2026-11-18"
HOUR = 3600.0

AGENT = Account(name="agent:prod:triage", window=DAY, cap=1000)
TOKENS = Account(name="agent:prod:triage", window=DAY, cap=5000, unit="tokens")
RUN = Account(name="run:r1", window="", cap=100)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[HoldTable]:
    opened = HoldTable(tmp_path / "holds.table")
    yield opened
    opened.close()


def spend(table: HoldTable, clock: FakeClock, *accounts: Account, amount: int, tokens: int = 0) -> None:
    table.settle(table.hold(accounts, amount, tokens=tokens, now=clock()), amount)


def lost(table: HoldTable) -> HoldTable:
    """A new table in place of one that was lost."""
    return HoldTable(table.path.with_name("new.table"))


def settled(table: HoldTable) -> dict[tuple[str, str, str], int]:
    return {(b.account, b.window, b.unit): b.settled for b in table.balances()}


def test_a_lost_table_starts_with_what_was_spent(control: Database, table: HoldTable, clock: FakeClock) -> None:
    spend(table, clock, AGENT, TOKENS, amount=800, tokens=3000)
    assert Ledger(control, clock).persist(table) == 2
    new = lost(table)
    Ledger(control, clock).restore(new)
    assert settled(new) == {(AGENT.name, DAY, "usd"): 800, (AGENT.name, DAY, "tokens"): 3000}
    with pytest.raises(LimitExceeded):
        new.hold([AGENT], 201, now=clock())
    new.close()


def test_only_what_changed_is_written(control: Database, table: HoldTable, clock: FakeClock) -> None:
    ledger = Ledger(control, clock)
    spend(table, clock, AGENT, TOKENS, amount=10, tokens=10)
    assert ledger.persist(table) == 2
    assert ledger.persist(table) == 0
    spend(table, clock, AGENT, amount=10)
    assert ledger.persist(table) == 1


def test_a_total_in_the_ledger_never_goes_down(control: Database, table: HoldTable, clock: FakeClock) -> None:
    spend(table, clock, AGENT, amount=800)
    Ledger(control, clock).persist(table)
    new = lost(table)
    new.restore([])  # somebody uses a new table without the ledger's totals
    spend(new, clock, AGENT, amount=50)
    Ledger(control, clock).persist(new)
    newer = HoldTable(table.path.with_name("newer.table"))
    Ledger(control, clock).restore(newer)
    assert settled(newer) == {(AGENT.name, DAY, "usd"): 800}
    new.close()
    newer.close()


def test_a_row_tells_when_something_was_last_spent_also_after_a_restart(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    spend(table, clock, AGENT, amount=800)
    Ledger(control, clock).persist(table)
    clock.advance(HOUR)
    Ledger(control, clock).persist(table)  # another control plane's first: it knows of nothing that is written
    with control.read() as connection:
        assert [row.updated_at for row in store.since(connection, NOON)] == [NOON]


def test_persisting_restores_a_table_that_nobody_restored(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    spend(table, clock, AGENT, amount=800)
    Ledger(control, clock).persist(table)
    new = lost(table)
    Ledger(control, clock).persist(new)
    assert settled(new) == {(AGENT.name, DAY, "usd"): 800}
    new.close()


def test_a_run_that_waits_moves_to_the_ledger_and_comes_back(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    ledger = Ledger(control, clock)
    spend(table, clock, RUN, amount=90)
    ledger.persist(table)
    assert settled(table) == {("run:r1", "", "usd"): 90}
    clock.advance(RUN_IDLE_SECONDS + 1)
    ledger.persist(table)
    assert settled(table) == {}
    ledger.reopen_run(table, "r1")
    with pytest.raises(LimitExceeded):
        table.hold([RUN], 11, now=clock())


def test_a_run_that_another_machine_goes_on_with_has_spent_what_it_spent_there(
    control: Database, table: HoldTable, clock: FakeClock, tmp_path: Path
) -> None:
    began, goes_on = Ledger(control, clock, machine="a"), Ledger(control, clock, machine="b")
    new = HoldTable(tmp_path / "new.table")
    began.restore(table)
    spend(table, clock, RUN, amount=90)
    began.persist(table)
    clock.advance(1)  # somebody approves at once
    goes_on.reopen_run(new, "r1")
    with pytest.raises(LimitExceeded):
        new.hold([RUN], 11, now=clock())
    spend(new, clock, RUN, amount=5)
    goes_on.persist(new)
    began.reopen_run(table, "r1")  # and it comes back
    assert settled(table) == {("run:r1", "", "usd"): 95}
    new.close()


def test_a_run_that_goes_on_stays_however_long_its_tools_take(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    row = {
        "id": "r1", "agent": "triage", "environment": "prod", "behaviour_digest": "b", "effective_digest": "e",
        "arm": "stable", "assignment_key": "k", "tenant": "acme", "status": "running", "input": "hi",
        "trace_id": "0" * 32, "started_at": NOON,
    }  # fmt: skip
    with control.write() as connection:
        connection.execute(insert(schema.runs).values(row))
    ledger = Ledger(control, clock)
    spend(table, clock, RUN, amount=90)
    clock.advance(RUN_IDLE_SECONDS + 1)
    ledger.persist(table)
    assert settled(table) == {("run:r1", "", "usd"): 90}
    with control.write() as connection:
        connection.execute(update(schema.runs).values(status="completed"))
    ledger.persist(table)
    assert settled(table) == {}


def test_a_run_with_a_call_under_way_stays(control: Database, table: HoldTable, clock: FakeClock) -> None:
    table.hold([RUN], 90, now=clock())
    clock.advance(RUN_IDLE_SECONDS + 1)
    Ledger(control, clock).persist(table)
    assert [balance.held for balance in table.balances()] == [90]


def test_a_day_that_is_over_leaves_the_table_but_not_the_ledger(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    ledger = Ledger(control, clock)
    spend(table, clock, AGENT, amount=800)
    clock.advance(12 * HOUR + 1)  # past midnight
    ledger.persist(table)
    assert settled(table) == {(AGENT.name, DAY, "usd"): 800}, "late calls may still settle"
    clock.advance(WINDOW_GRACE_SECONDS)
    spend(table, clock, Account(name=AGENT.name, window="2026-11-19", cap=1000), amount=5)
    ledger.persist(table)
    assert settled(table) == {(AGENT.name, "2026-11-19", "usd"): 5}
    new = lost(table)
    clock.now = NOON
    ledger.restore(new)
    assert settled(new)[AGENT.name, DAY, "usd"] == 800
    new.close()


def test_old_runs_are_forgotten(control: Database, table: HoldTable, clock: FakeClock) -> None:
    ledger = Ledger(control, clock)
    spend(table, clock, RUN, amount=90)
    clock.advance(RUN_IDLE_SECONDS + 1)
    ledger.persist(table)
    spend(table, clock, Account(name="run:r2", window="", cap=100), amount=1)
    clock.advance(RUN_KEPT_SECONDS + 1)
    ledger.persist(table)
    ledger.reopen_run(table, "r1")
    assert settled(table) == {}
    ledger.reopen_run(table, "r2")
    assert settled(table) == {("run:r2", "", "usd"): 1}


def test_balances_are_the_tables_and_else_the_ledgers(control: Database, table: HoldTable, clock: FakeClock) -> None:
    ledger = Ledger(control, clock)
    spend(table, clock, AGENT, TOKENS, amount=800, tokens=1)
    ledger.persist(table)
    spend(table, clock, AGENT, amount=100)
    assert [(b.unit, b.settled, b.cap) for b in ledger.balances(table, "agent:")] == [
        ("tokens", 1, 5000),
        ("usd", 900, 1000),
    ]
    assert [(b.unit, b.settled, b.cap) for b in ledger.balances(None)] == [("tokens", 1, None), ("usd", 800, None)]


def test_a_deployed_agents_cap_shows_before_anything_is_spent(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    row = {
        "environment": "prod", "agent": "triage", "stable_behaviour": "b", "stable_effective": "e",
        "settings": {"daily_usd": 2.5}, "updated_at": NOON, "updated_by": "me",
    }  # fmt: skip
    with control.write() as connection:
        connection.execute(insert(schema.deployments).values(row))
    ledger = Ledger(control, clock)
    [unspent] = ledger.balances(table)
    assert (unspent.account, unspent.window, unspent.left) == ("agent:prod:triage", DAY, 2_500_000_000)
    spend(table, clock, Account(name=AGENT.name, window=DAY, cap=None), amount=500_000_000)
    assert [balance.left for balance in ledger.balances(table)] == [2_000_000_000]


def an_hour(ledger: Ledger) -> float:
    """What the rate is of the agent's budget, an hour."""
    return ledger.burning()[AGENT.key] * HOUR


def charged(control: Database, ledger: Ledger, table: HoldTable, clock: FakeClock, reason: str, amount: int) -> Charges:
    """Spend so much on a call of which nobody knows what it used."""
    spend(table, clock, AGENT, amount=amount)
    ledger.persist(table)
    charges = Charges(control, ledger, table, clock)
    with control.write() as connection:
        charges.keep(connection, Charge("a" * 16, clock(), reason, ((AGENT.key, amount),), 0))
    return charges


def test_what_is_spent_an_hour_follows_a_correction(control: Database, table: HoldTable, clock: FakeClock) -> None:
    ledger = Ledger(control, clock)
    charges = charged(control, ledger, table, clock, "no_usage", 800)
    clock.advance(60)
    before = an_hour(ledger)
    charges.correct("a" * 16, Used(200, 0))
    assert an_hour(ledger) == pytest.approx(before / 4)
    ledger.persist(table)
    spend(table, clock, AGENT, amount=1)
    for other in (ledger, Ledger(control, clock)):  # neither who wrote the charge down nor a new process takes it back
        other.persist(table)
        assert an_hour(other) == pytest.approx(before / 4, rel=0.02)


def test_what_another_machine_knows_of_an_account_shows_here(
    control: Database, table: HoldTable, clock: FakeClock, tmp_path: Path
) -> None:
    here, there = Ledger(control, clock, machine="a"), Ledger(control, clock, machine="b")
    new = HoldTable(tmp_path / "new.table")
    there.restore(table)
    spend(table, clock, AGENT, amount=300)
    table.hold([AGENT], 500, now=clock())
    with pytest.raises(LimitExceeded):
        table.hold([AGENT], 300, now=clock())
    there.persist(table)
    [balance] = here.balances(new)
    assert (balance.cap, balance.settled, balance.held, balance.left, balance.refused) == (1000, 300, 500, 200, 1)
    spend(new, clock, AGENT, amount=50)
    here.persist(new)
    for ledger, its in ((here, new), (there, table)):
        [balance] = ledger.balances(its)
        assert (balance.cap, balance.settled, balance.held, balance.left, balance.refused) == (1000, 350, 500, 150, 1)
    clock.advance(store.LOST_SECONDS + 1)  # who held it may be gone
    assert [balance.held for balance in here.balances(new)] == [0]
    new.close()


def test_a_machine_that_begins_late_does_not_raise_what_is_spent_an_hour(
    control: Database, table: HoldTable, clock: FakeClock, tmp_path: Path
) -> None:
    busy, quiet = Ledger(control, clock, machine="a"), Ledger(control, clock, machine="b")
    for _ in range(120):
        spend(table, clock, AGENT, amount=1)
        busy.persist(table)
        clock.advance(60)
    before, new = busy.burning()[AGENT.key], HoldTable(tmp_path / "new.table")
    spend(new, clock, AGENT, amount=1)
    quiet.persist(new)
    assert busy.burning()[AGENT.key] < 1.1 * before
    new.close()


def test_a_correction_that_comes_late_takes_nothing_from_what_was_spent_since(
    control: Database, table: HoldTable, clock: FakeClock
) -> None:
    ledger = Ledger(control, clock)
    charges = charged(control, ledger, table, clock, "no_usage", 800)
    clock.advance(3 * HOUR)
    spend(table, clock, AGENT, amount=100)
    ledger.persist(table)
    before = an_hour(ledger)
    charges.correct("a" * 16, Used(0, 0))
    assert an_hour(ledger) == pytest.approx(before, rel=0.01)


def test_what_is_held_for_a_batch_is_not_spent(control: Database, table: HoldTable, clock: FakeClock) -> None:
    ledger = Ledger(control, clock)
    charges = charged(control, ledger, table, clock, BATCH, 800)
    assert an_hour(ledger) == pytest.approx(0.0, abs=1e-6)
    charges.correct("a" * 16, Used(200, 0))
    assert an_hour(ledger) > 0
