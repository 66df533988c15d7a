"""Holds are all or nothing, settle once, and never let an account pass its cap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from lockgate.errors import Corrupt, InputError, LimitExceeded, Unavailable
from lockgate.limits import processes, records, tablefile
from lockgate.limits.holdtable import MOST, STALE_SECONDS, HoldTable
from lockgate.limits.model import Account, Balance, Charged, Hold, LeaseNeeded, Rate

NOW = 1_795_000_000.0
DAY = "2026-11-18"

AGENT = Account(name="agent:prod:triage", window=DAY, cap=1000)
TENANT = Account(name="tenant:prod:acme", window=DAY, cap=5000)
RUN = Account(name="run:r1", window="", cap=400)
RUN_TOKENS = Account(name="run:r1", window="", cap=100, unit="tokens")
RUN_CALLS = Account(name="run:r1", window="", cap=2, unit="calls")


@pytest.fixture
def table(tmp_path: Path) -> Iterator[HoldTable]:
    opened = HoldTable(tmp_path / "holds.table")
    yield opened
    opened.close()


def standing(table: HoldTable, account: Account) -> tuple[int, int]:
    """(settled, held)"""
    wanted = (account.name, account.window, account.unit)
    found = [b for b in table.balances() if (b.account, b.window, b.unit) == wanted]
    return (found[0].settled, found[0].held) if found else (0, 0)


def test_a_hold_counts_on_every_account_and_settling_frees_the_rest(table: HoldTable) -> None:
    hold = table.hold([AGENT, TENANT], 300, now=NOW)
    assert standing(table, AGENT) == standing(table, TENANT) == (0, 300)
    assert table.settle(hold, 120)
    assert standing(table, AGENT) == standing(table, TENANT) == (120, 0)


def test_a_hold_that_one_account_cannot_take_is_made_on_none(table: HoldTable) -> None:
    with pytest.raises(LimitExceeded) as refused:
        table.hold([TENANT, AGENT], 1001, now=NOW)
    assert refused.value.limit == "agent:prod:triage"
    assert standing(table, TENANT) == standing(table, AGENT) == (0, 0)
    assert table.open_holds() == 0


def test_what_is_held_counts_against_the_cap(table: HoldTable) -> None:
    table.hold([AGENT], 600, now=NOW)
    with pytest.raises(LimitExceeded):
        table.hold([AGENT], 401, now=NOW)
    table.hold([AGENT], 400, now=NOW)  # 600 + 400 = 1000: exactly the cap
    assert standing(table, AGENT) == (0, 1000)


def test_each_unit_has_its_own_amount(table: HoldTable) -> None:
    hold = table.hold([RUN, RUN_TOKENS, RUN_CALLS], 200, tokens=60, now=NOW)
    assert [standing(table, account) for account in (RUN, RUN_TOKENS, RUN_CALLS)] == [(0, 200), (0, 60), (0, 1)]
    table.settle(hold, 150, tokens=45)
    assert [standing(table, account) for account in (RUN, RUN_TOKENS, RUN_CALLS)] == [(150, 0), (45, 0), (1, 0)]


def test_calls_run_out_and_a_released_call_is_not_one(table: HoldTable) -> None:
    table.release(table.hold([RUN_CALLS], 0, now=NOW))
    for _ in range(2):
        table.settle(table.hold([RUN_CALLS], 0, now=NOW), 0)
    with pytest.raises(LimitExceeded, match="2 calls"):
        table.hold([RUN_CALLS], 0, now=NOW)


def test_a_hold_is_settled_once(table: HoldTable) -> None:
    hold = table.hold([AGENT], 300, now=NOW)
    assert table.settle(hold, 100)
    again = table.hold([AGENT], 300, now=NOW)  # takes the slot that became free
    assert again.slot == hold.slot
    assert not table.settle(hold, 100)
    assert not table.release(hold)
    assert standing(table, AGENT) == (100, 300)


def test_a_cost_above_the_hold_is_charged_and_counted(table: HoldTable) -> None:
    hold = table.hold([AGENT], 100, now=NOW)
    table.settle(hold, 150)
    assert standing(table, AGENT) == (150, 0)
    assert table.overruns == 1


def test_an_account_without_a_cap_is_counted(table: HoldTable) -> None:
    free = Account(name="tenant:prod:other", window=DAY, cap=None)
    table.settle(table.hold([free], 10**13, now=NOW), 10**13)
    [balance] = table.balances("tenant:")
    assert (balance.cap, balance.settled, balance.left) == (None, 10**13, None)


def test_a_new_day_is_a_new_account_and_late_costs_go_to_their_own_day(table: HoldTable) -> None:
    yesterday = Account(name=AGENT.name, window="2026-11-17", cap=1000)
    late = table.hold([yesterday], 900, now=NOW)
    table.hold([AGENT], 900, now=NOW)
    table.settle(late, 500)
    assert standing(table, yesterday) == (500, 0)
    assert standing(table, AGENT) == (0, 900)


def test_the_refused_calls_of_an_account_are_counted(table: HoldTable) -> None:
    for _ in range(3):
        with pytest.raises(LimitExceeded):
            table.hold([RUN], 401, now=NOW)
    [balance] = table.balances("run:")
    assert balance.refused == 3


def test_the_cap_is_the_one_the_caller_gives(table: HoldTable) -> None:
    table.hold([AGENT], 1000, now=NOW)
    raised = Account(name=AGENT.name, window=DAY, cap=2000)
    table.hold([raised], 1000, now=NOW)
    [balance] = table.balances("agent:")
    assert (balance.cap, balance.held) == (2000, 2000)


def test_another_opening_of_the_file_sees_the_same(table: HoldTable) -> None:
    hold = table.hold([AGENT], 300, now=NOW)
    other = HoldTable(table.path)
    assert other.balances() == table.balances()
    assert other.settle(hold, 300)
    assert not table.settle(hold, 300)
    other.close()


def test_holds_of_a_living_process_are_left_alone_until_they_are_stale(table: HoldTable) -> None:
    table.hold([AGENT], 300, now=NOW)
    sent = table.hold([AGENT], 200, now=NOW)
    table.mark_sent(sent)
    assert table.reap(NOW + STALE_SECONDS - 1) == 0
    assert table.reap(NOW + STALE_SECONDS + 1) == 2
    assert standing(table, AGENT) == (200, 0)  # what was sent is charged, the other given back
    assert not table.settle(sent, 1)


def test_a_disowned_hold_outlives_its_process(table: HoldTable, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, lost = table.hold([AGENT], 300, now=NOW), table.hold([AGENT], 200, now=NOW)
    table.disown(kept)
    monkeypatch.setattr(processes, "start_time", lambda pid: None)
    assert table.reap(NOW + STALE_SECONDS - 1) == 1
    assert not table.settle(lost, 1)
    assert table.settle(kept, 100)
    assert standing(table, AGENT) == (100, 0)


def test_a_disowned_hold_is_charged_in_full_after_an_hour(table: HoldTable) -> None:
    table.disown(table.hold([AGENT], 300, now=NOW, tag=7))
    charged: list[Charged] = []
    assert table.reap(NOW + STALE_SECONDS + 1, charged) == 1
    assert [(one.tag, one.parts) for one in charged] == [(7, ((AGENT.key, 300),))]
    assert standing(table, AGENT) == (300, 0)


def test_a_hold_that_is_disowned_while_the_dead_are_looked_for_stays(
    table: HoldTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = table.hold([AGENT], 300, now=NOW)

    def disowned_and_dead(pid: int) -> None:
        table.disown(hold)

    monkeypatch.setattr(processes, "start_time", disowned_and_dead)
    assert table.reap(NOW) == 0
    assert standing(table, AGENT) == (0, 300)


def test_to_disown_what_has_ended_leaves_who_took_its_place_alone(
    table: HoldTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = table.hold([AGENT], 300, now=NOW)
    table.release(ended)
    table.hold([AGENT], 200, now=NOW)  # in the slot that became free
    table.disown(ended)
    monkeypatch.setattr(processes, "start_time", lambda pid: None)
    assert table.reap(NOW) == 1
    assert standing(table, AGENT) == (0, 0)


def test_counting_stops_at_the_cap(table: HoldTable) -> None:
    tools = Account(name="run:r1:tools", window="", cap=2, unit="calls")
    table.count(tools, now=NOW)
    table.count(tools, now=NOW)
    with pytest.raises(LimitExceeded) as refused:
        table.count(tools, now=NOW)
    assert refused.value.retry_after is None  # waiting cannot help
    assert standing(table, tools) == (2, 0)


def test_full_buckets_are_forgotten(table: HoldTable) -> None:
    table.settle(table.hold([RUN], 0, now=NOW, rates=[Rate(name="key:k1", per_minute=60.0)]), 0)
    table.drop(table.balances())
    assert table.drop_rates(NOW + 0.5) == 0
    assert table.drop_rates(NOW + 1.5) == 1
    assert table.balances() == []


def test_a_dropped_account_is_used_again_and_starts_from_nothing(table: HoldTable) -> None:
    table.settle(table.hold([RUN], 400, now=NOW), 400)
    assert table.drop(table.balances("run:")) == 1
    table.hold([RUN], 400, now=NOW)
    assert standing(table, RUN) == (0, 400)


def test_who_makes_up_names_leaves_room_for_the_calls_of_others(
    table: HoldTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_NAMED", 4)

    def call(name: str) -> None:
        table.settle(table.hold([Account(name=name, window="", cap=10**9), AGENT], 1, now=NOW), 0)

    for name in ("session:prod:acme/s1", "run:prod/acme/r1", "task:prod:t1", "label:prod:l1"):
        call(name)
    for name in ("session:prod:acme/s2", "run:prod/acme/r2"):
        with pytest.raises(Unavailable, match="no room for another name"):
            call(name)
    call("session:prod:acme/s1")
    call("run:run_1")  # an agent's: its id is ours
    call("tenant:prod:other")
    table.drop(table.balances("session:"))
    call("session:prod:acme/s2")
    table._file._repair(table._file, False)
    with pytest.raises(Unavailable):
        call("task:prod:t2")


def test_ten_thousand_runs_leave_the_file_as_small_as_one(table: HoldTable) -> None:
    def one_run(number: int) -> None:
        account = Account(name=f"run:{number}", window="", cap=10)
        table.settle(table.hold([account, AGENT], 1, now=NOW), 0)
        assert table.drop(table.balances("run:")) == 1

    one_run(0)
    before = table.path.stat().st_blocks
    for number in range(1, 10_000):
        one_run(number)
    assert table.path.stat().st_blocks == before


def test_an_account_in_use_is_not_dropped(table: HoldTable) -> None:
    seen = table.balances
    hold = table.hold([RUN], 100, now=NOW)
    assert table.drop(seen("run:")) == 0
    before = seen("run:")
    table.settle(hold, 50)
    assert table.drop(before) == 0  # it changed since
    assert table.drop(seen("run:")) == 1


def test_restoring_never_lowers_a_total(table: HoldTable) -> None:
    table.settle(table.hold([AGENT], 300, now=NOW), 300)
    kept = [
        Balance(account=AGENT.name, window=DAY, cap=None, settled=200, held=0),
        Balance(account=TENANT.name, window=DAY, cap=None, settled=700, held=0),
    ]
    assert not table.restored
    table.restore(kept)
    assert table.restored
    assert (standing(table, AGENT), standing(table, TENANT)) == ((300, 0), (700, 0))


def test_names_that_share_a_start_do_not_mix(table: HoldTable) -> None:
    names = [f"agent:prod:{'a' * length}" for length in (1, 2, 3, 100, 300)] + ["agent:prod:é", "agent:prod:日本"]
    for amount, name in enumerate(names, 1):
        table.hold([Account(name=name, window=DAY, cap=None)], amount, now=NOW)
    assert {balance.account: balance.held for balance in table.balances()} == {
        name: amount for amount, name in enumerate(names, 1)
    }


@pytest.mark.parametrize("name", ["x" * 500, "a\0b"])
def test_a_name_that_cannot_be_kept_is_an_error(table: HoldTable, name: str) -> None:
    with pytest.raises(InputError, match="too long or holds a zero byte"):
        table.hold([Account(name=name, window="", cap=None)], 1, now=NOW)
    table.hold([AGENT], 1, now=NOW)  # the table is not locked


@pytest.mark.parametrize(("amount", "tokens"), [(-1, 0), (0, -1)])
def test_negative_amounts_are_refused(table: HoldTable, amount: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="not negative"):
        table.hold([AGENT], amount, tokens=tokens, now=NOW)


@pytest.mark.parametrize(("amount", "tokens"), [(MOST + 1, 0), (0, MOST + 1), (10**30, 10**30)])
def test_what_no_budget_counts_is_refused_and_the_table_goes_on(table: HoldTable, amount: int, tokens: int) -> None:
    with pytest.raises(InputError, match="more than any budget counts at once"):
        table.hold([], amount, tokens=tokens, now=NOW)
    assert table.settle(table.hold([], MOST, tokens=MOST, now=NOW), MOST, tokens=MOST)
    assert table.open_holds() == 0


def test_an_account_named_twice_is_refused(table: HoldTable) -> None:
    with pytest.raises(ValueError, match="named twice"):
        table.hold([AGENT, AGENT], 1, now=NOW)


def test_a_file_that_is_no_hold_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "holds.table"
    path.write_bytes(b"something else entirely" * 10)
    with pytest.raises(Corrupt, match="is no hold table"):
        HoldTable(path)
    assert path.read_bytes() == b"something else entirely" * 10


def test_only_its_owner_may_read_the_file(table: HoldTable) -> None:
    assert table.path.stat().st_mode & 0o777 == 0o600


def test_a_restart_of_the_machine_charges_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = HoldTable(tmp_path / "holds.table")
    before.restore([])
    before.settle(before.hold([AGENT], 100, now=NOW), 100)
    before.mark_sent(before.hold([AGENT], 200, now=NOW))
    before.hold([AGENT], 400, now=NOW)
    before.close()
    monkeypatch.setattr(tablefile.processes, "boot_id", lambda: b"another boot id!")
    after = HoldTable(tmp_path / "holds.table")
    assert standing(after, AGENT) == (300, 0)  # 100 settled + 200 sent
    assert not after.restored
    after.close()


def test_a_disowned_hold_outlives_a_restart_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = HoldTable(tmp_path / "holds.table")
    hold = before.hold([AGENT, TENANT], 200, now=NOW)
    before.disown(hold)
    before.close()
    monkeypatch.setattr(tablefile.processes, "boot_id", lambda: b"another boot id!")
    after = HoldTable(tmp_path / "holds.table")
    assert standing(after, AGENT) == standing(after, TENANT) == (0, 200)
    assert after.settle(hold, 50)
    assert standing(after, AGENT) == standing(after, TENANT) == (50, 0)
    after.close()


LEASED = Account(name="project:prod", window=DAY, cap=3000, leased=True)
SLOTS = Account(name="key:prod:k", window="", cap=3, unit="concurrent")
RATE = Rate(name="key:prod:k", per_minute=60.0)


class Machine(RuleBasedStateMachine):
    """Any sequence of calls leaves the table where a table of plain dictionaries would be."""

    holds: Bundle[tuple[Hold, tuple[Account, ...], int]] = Bundle("holds")
    accounts = st.lists(st.sampled_from([AGENT, TENANT, RUN, LEASED]), min_size=1, unique=True).map(tuple)
    amounts = st.integers(0, 500)

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.boot = 1
        self.table = self._opened()
        self.settled: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.open: set[int] = set()
        self.disowned: set[int] = set()
        self.granted = -1  # nothing was ever leased
        self.under_way = 0
        self.calls = 0
        self.leased = False
        self.entries: dict[int, tuple[Hold, tuple[Account, ...], int]] = {}
        self.done: list[Hold] = []

    def teardown(self) -> None:
        self.table.close()
        self.folder.cleanup()

    @rule(target=holds, accounts=accounts, amount=amounts, disowned=st.booleans())
    def hold(
        self, accounts: tuple[Account, ...], amount: int, disowned: bool
    ) -> tuple[Hold, tuple[Account, ...], int] | object:
        def used(account: Account) -> int:
            return self.settled.get(account.name, 0) + self.held.get(account.name, 0)

        fits = all(used(account) + amount <= (account.cap or 0) for account in accounts)
        fits &= self.under_way < 3
        leased = LEASED not in accounts or used(LEASED) + amount <= self.granted
        try:
            hold = self.table.hold([*accounts, SLOTS], amount, now=NOW, rates=[RATE])
        except LeaseNeeded as needed:
            assert fits
            assert not leased
            assert needed.short == ((LEASED, used(LEASED) + amount),)  # noqa: PT017
            return multiple()
        except LimitExceeded as refused:
            if refused.limit == RATE.name and self.under_way < 3:  # its bucket: sixty calls, and it is always now
                assert self.calls >= 60
                return multiple()
            assert not fits
            return multiple()
        assert fits
        assert leased
        self.under_way += 1
        self.calls += 1
        for account in accounts:
            self.held[account.name] = self.held.get(account.name, 0) + amount
        self.open.add(hold.generation)
        self.entries[hold.generation] = (hold, accounts, amount)
        if disowned:
            self.table.disown(hold)
            self.disowned.add(hold.generation)
        return (hold, accounts, amount)

    @rule(entry=consumes(holds), share=st.floats(0, 1), sent=st.booleans())
    def settle(self, entry: tuple[Hold, tuple[Account, ...], int], share: float, sent: bool) -> None:
        hold, accounts, amount = entry
        actual = int(amount * share)
        if hold.generation not in self.open:
            assert not self.table.settle(hold, actual)
            return
        if sent:
            self.table.mark_sent(hold)
        assert self.table.settle(hold, actual)
        self._end(hold, accounts, amount, actual)

    @rule(entry=consumes(holds))
    def release(self, entry: tuple[Hold, tuple[Account, ...], int]) -> None:
        hold, accounts, amount = entry
        if hold.generation not in self.open:
            assert not self.table.release(hold)
            return
        assert self.table.release(hold)
        self.calls -= 1  # what was never sent counts in no rate
        self._end(hold, accounts, amount, 0)

    @rule(amount=st.integers(0, 3000))
    def lease(self, amount: int) -> None:
        self.leased = True
        self.granted = max(amount, self.settled.get(LEASED.name, 0) + self.held.get(LEASED.name, 0))
        self.table.grant(LEASED.key, self.granted)

    @rule(amount=st.integers(0, 3000))
    def give_back(self, amount: int) -> None:
        used = self.settled.get(LEASED.name, 0) + self.held.get(LEASED.name, 0)
        lowered = self.table.lower_grant(LEASED.key, amount)
        if self.leased:
            self.granted = min(self.granted, max(amount, used))
            assert lowered == self.granted

    @rule(change=st.integers(-300, 0))
    def correct(self, change: int) -> None:
        if self.table.adjust(AGENT.key, change):
            self.settled[AGENT.name] = max(0, self.settled.get(AGENT.name, 0) + change)

    @precondition(lambda self: self.open)
    @rule(marked=st.booleans())
    def everybody_dies(self, marked: bool) -> None:
        """An hour passes: what was sent is charged in full, the rest is given back."""
        self._mark(marked)
        charged: list[Charged] = []
        ends = set(self.open)
        sent = ends if marked else ends & self.disowned
        assert self.table.reap(NOW + STALE_SECONDS + 1, charged) == len(ends)
        assert len(charged) == len(sent)
        self.calls -= len(ends - sent)
        self._end_all(ends, sent)

    @precondition(lambda self: self.open)
    @rule(marked=st.booleans())
    def processes_die(self, marked: bool) -> None:
        """What is a process's ends, what is nobody's stays."""
        self._mark(marked)
        ends = self.open - self.disowned
        with patch.object(processes, "start_time", lambda pid: None):
            assert self.table.reap(NOW) == len(ends)
        self.calls -= 0 if marked else len(ends)
        self._end_all(ends, ends if marked else set())

    @precondition(lambda self: self.open)
    @rule(marked=st.booleans())
    def the_machine_restarts(self, marked: bool) -> None:
        self._mark(marked)
        ends = self.open - self.disowned
        self.table.close()
        self.boot += 1
        self.table = self._opened()
        self.granted, self.leased = -1, False
        self._end_all(ends, ends if marked else set())  # rates are given nothing back

    @rule()
    def a_change_is_cut_off(self) -> None:
        """Who comes next repairs the table."""
        self.table._words[tablefile.H_DIRTY] = 1

    @rule()
    def settle_again(self) -> None:
        for hold in self.done:
            assert not self.table.settle(hold, 10)

    @rule()
    def reopen(self) -> None:
        self.table.close()
        self.table = self._opened()

    @rule()
    def forget_the_run(self) -> None:
        if self.table.drop(self.table.balances("run:")):
            self.settled.pop(RUN.name, None)
        else:
            assert self.held.get(RUN.name, 0) or not self.table.balances("run:") or self._run_is_open()

    @invariant()
    def agrees(self) -> None:
        got = {balance.account: (balance.settled, balance.held) for balance in self.table.balances()}
        for account in (AGENT, TENANT, RUN, LEASED):
            expected = (self.settled.get(account.name, 0), self.held.get(account.name, 0))
            assert got.get(account.name, (0, 0)) == expected
            assert sum(expected) <= (account.cap or 0)
        assert self.table.open_holds() == len(self.open)

    def _run_is_open(self) -> bool:
        return bool(self.open)  # a hold of nothing keeps an account too

    def _opened(self) -> HoldTable:
        with patch.object(processes, "boot_id", lambda: self.boot.to_bytes(16, "little")):
            return HoldTable(Path(self.folder.name) / "holds.table")

    def _mark(self, marked: bool) -> None:
        for generation in self.open if marked else ():
            self.table.mark_sent(self.entries[generation][0])

    def _end_all(self, ends: set[int], sent: set[int]) -> None:
        for generation in ends:
            hold, accounts, amount = self.entries[generation]
            self._end(hold, accounts, amount, amount if generation in sent else 0)

    def _end(self, hold: Hold, accounts: tuple[Account, ...], amount: int, actual: int) -> None:
        self.open.discard(hold.generation)
        self.under_way -= 1
        self.done.append(hold)
        for account in accounts:
            self.held[account.name] -= amount
            self.settled[account.name] = self.settled.get(account.name, 0) + actual


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40)
