"""A change to the hold table may be cut off after any instruction: it then happened wholly, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lockgate.limits import records, tablefile
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account, Rate

NOW = 1_795_000_000.0
TRIAGE = Account(name="agent:prod:triage", window="2026-11-18", cap=1000)
ACME = Account(name="tenant:prod:acme", window="2026-11-18", cap=None)
CALLS = Account(name="run:r1", window="", cap=10, unit="calls")
SLOTS = Account(name="key:prod:k1", window="", cap=4, unit="concurrent")
RATE = Rate(name="key:prod:k1", per_minute=60.0, member="x")
TOKENS = Rate(name="key:prod:k1", per_minute=600.0, unit="tokens")
IDLE = Account(name="run:idle", window="", cap=None)
NEW = Account(name="run:r2", window="", cap=1000)


class Cut(BaseException):
    """Stands for kill -9: like it, it leaves the words of the table as they are and gives the lock back."""


def cut_after(instructions: int, act: Callable[[], Any]) -> bool:
    """Run ``act`` and cut it off after so many bytecodes of the table's code; False when it got to its end."""
    left = instructions

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != records.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Cut
        return trace

    sys.settrace(trace)
    try:
        act()
    except Cut:
        return True
    finally:
        sys.settrace(None)
    return False


def state(table: HoldTable) -> dict[tuple[str, str], tuple[int, int]]:
    """What counts: (settled, held) of each account that is not at nothing."""
    found = {(b.account, b.unit): (b.settled, b.held) for b in table.balances()}
    return {key: figures for key, figures in found.items() if figures != (0, 0)}


def nothing_lost(table: HoldTable) -> None:
    """Each account used is in its hash chain once, and each record not used is in its free list once."""
    words = table._words
    for first, size, high, free, link in (
        (tablefile.ACCOUNTS_AT, 64, tablefile.H_ACCOUNT_HIGH, tablefile.H_ACCOUNT_FREE, records.A_NEXT),
        (tablefile.SLOTS_AT, 128, tablefile.H_SLOT_HIGH, tablefile.H_SLOT_FREE, records.S_NEXT),
    ):
        places = [first + number * size for number in range(words[high])]
        unused = [place for place in places if words[place] == records.FREE]
        assert sorted(chain(words, words[free], link)) == unused
    accounts = range(tablefile.ACCOUNTS_AT, tablefile.ACCOUNTS_AT + words[tablefile.H_ACCOUNT_HIGH] * 64, 64)
    for base in accounts:
        if words[base] == records.USED:
            bucket = tablefile.BUCKETS_AT + words[base + records.A_HASH] % tablefile.BUCKETS
            assert chain(words, words[bucket], records.A_NEXT).count(base) == 1


def chain(words: Any, place: int, link: int) -> list[int]:
    found: list[int] = []
    while place and len(found) < 100:
        found.append(place)
        place = words[place + link]
    return found


def in_order(table: HoldTable) -> None:
    """Free lists and chains work: what is opened now is apart from all else, and can be found and ended."""
    nothing_lost(table)
    before, opened = state(table), table.open_holds()
    fresh = [Account(name=f"run:fresh-{number}", window="", cap=5) for number in range(3)]
    holds = [table.hold([TRIAGE, account], 5, now=NOW) for account in fresh]
    assert len({hold.slot for hold in holds}) == 3
    assert table.open_holds() == opened + 3
    for hold in holds:
        assert table.release(hold)
    assert table.drop(table.balances("run:fresh")) == 3
    assert state(table) == before


class Prepared:
    """A table with something settled, something free, and two open holds, that can be brought back to that."""

    def __init__(self, path: Path) -> None:
        self.table = HoldTable(path)
        self.table.settle(self.table.hold([TRIAGE, ACME, CALLS], 100, now=NOW), 70)
        self.table.settle(self.table.hold([IDLE], 5, now=NOW), 5)
        self.table.disown(self.table.hold([TRIAGE], 40, now=NOW))
        self.hold = self.table.hold([TRIAGE, ACME, CALLS, SLOTS], 300, tokens=9, rates=[TOKENS], now=NOW)
        raw = self.table._records.raw
        ends = ((0, tablefile.ACCOUNTS_AT * 8 + 32 * 512), (tablefile.SLOTS_AT * 8, tablefile.SLOTS_AT * 8 + 32 * 512))
        self.kept = [(slice(*end), bytes(raw[slice(*end)])) for end in ends]

    def again(self) -> None:
        for place, content in self.kept:
            self.table._records.raw[place] = content
        self.table._known.clear()
        self.table._buckets._known.clear()


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Prepared]:
    made = Prepared(tmp_path / "holds.table")
    yield made
    made.table.close()


CHANGES: dict[str, Callable[[HoldTable, Any], Any]] = {
    "hold": lambda table, hold: table.hold([TRIAGE, ACME, CALLS], 20, now=NOW),
    "hold on a new account": lambda table, hold: table.hold([TRIAGE, NEW], 20, now=NOW),
    "hold with a rate": lambda table, hold: table.hold([TRIAGE, SLOTS], 20, tokens=5, rates=[RATE, TOKENS], now=NOW),
    "settle": lambda table, hold: table.settle(hold, 250),
    "release": lambda table, hold: table.release(hold),
    "disown": lambda table, hold: table.disown(hold),
    "drop": lambda table, hold: table.drop(table.balances("run:idle")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_cut_off_anywhere_happened_wholly_or_not_at_all(prepared: Prepared, change: str) -> None:
    table = prepared.table

    def act() -> None:
        CHANGES[change](table, prepared.hold)

    def seen() -> Any:
        return state(table), table.open_holds()

    before = seen()
    act()
    after = seen()
    outcomes = []
    for step in range(10_000):
        prepared.again()
        was_cut = cut_after(step, act)
        assert seen() in (before, after), f"cut off after {step} instructions"
        outcomes.append(seen() == after)
        in_order(table)
        if not was_cut:
            break
    assert not was_cut
    assert outcomes.count(True) > 1  # also some that were cut off after the point of no return
    assert before == after or outcomes.count(False) > 20


def test_a_repair_cut_off_anywhere_is_done_again(prepared: Prepared) -> None:
    table = prepared.table

    def settle() -> None:
        table.settle(prepared.hold, 250)

    def is_settling() -> bool:
        return table._words[records.slot_at(prepared.hold.slot)] == records.SETTLING

    committed = 0
    while not is_settling():
        prepared.again()
        cut_after(committed, settle)
        committed += 1
    for step in range(0, 10_000, 5):
        prepared.again()
        cut_after(committed + 20, settle)
        assert is_settling()
        was_cut = cut_after(step, table.balances)  # the first to come repairs, and dies too
        assert state(table) == {
            ("agent:prod:triage", "usd"): (320, 40),  # 70 + 250 settled, another 40 held
            ("tenant:prod:acme", "usd"): (320, 0),
            ("run:r1", "calls"): (2, 0),
            ("run:idle", "usd"): (5, 0),
        }
        in_order(table)
        if not was_cut:
            break
    assert not was_cut
