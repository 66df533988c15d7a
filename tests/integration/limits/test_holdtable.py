"""The hold table under processes that are killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate.errors import Unavailable
from lockgate.limits import tablefile, tablelock
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account, Hold

NOW = 1_795_000_000.0
AGENT = Account(name="agent:prod:triage", window="2026-11-18", cap=1000)


@pytest.fixture(params=["mutex", "flock"])
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HoldTable]:
    if request.param == "flock":
        monkeypatch.setattr(tablefile, "knows_mutex", lambda: False)
    elif not tablelock.knows_mutex():
        pytest.skip("this system has no mutex that processes share")
    opened = HoldTable(tmp_path / "holds.table")
    monkeypatch.undo()
    yield opened
    opened.close()


def python(script: str, path: Path, *, timeout: float = 120.0) -> str:
    """Run a script in a process of its own; it finds the table's path in ``sys.argv[1]``."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout


PREAMBLE = """
import json, os, random, signal, sys, time
from pathlib import Path
from lockgate.errors import LimitExceeded
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account
NOW = 1_795_000_000.0
AGENT = Account(name="agent:prod:triage", window="2026-11-18", cap=1000)
table = HoldTable(Path(sys.argv[1]))
"""


def test_holds_of_a_killed_process_are_charged_if_sent_and_else_returned(table: HoldTable) -> None:
    script = """
table.mark_sent(table.hold([AGENT], 300, now=NOW))
table.hold([AGENT], 500, now=NOW)
os.kill(os.getpid(), signal.SIGKILL)
"""
    python(PREAMBLE + script, table.path)
    [balance] = table.balances()
    assert (balance.settled, balance.held) == (0, 800)
    assert table.reap(NOW) == 2
    [balance] = table.balances()
    assert (balance.settled, balance.held) == (300, 0)
    assert table.reap(NOW) == 0


def test_a_disowned_hold_of_a_killed_process_is_settled_by_another(table: HoldTable) -> None:
    script = """
hold = table.hold([AGENT], 300, now=NOW)
table.disown(hold)
print(hold.slot, hold.generation, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    slot, generation = map(int, python(PREAMBLE + script, table.path).split())
    assert table.reap(NOW) == 0
    assert table.settle(Hold(slot=slot, generation=generation, amount=300), 200)
    [balance] = table.balances()
    assert (balance.settled, balance.held) == (200, 0)


def test_a_child_not_yet_waited_for_counts_as_dead(table: HoldTable) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + "table.hold([AGENT], 300, now=NOW)", str(table.path)],
    )
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is a zombie now
    assert table.reap(NOW) == 1
    child.wait(60)


def test_a_killed_holder_of_the_lock_gives_it_back(table: HoldTable) -> None:
    script = """
with table._file:
    table._words[4] = os.getpid()  # dirty: half-way through a change
    os.kill(os.getpid(), signal.SIGKILL)
"""
    python(PREAMBLE + script, table.path)
    repairs = table.repairs
    table.settle(table.hold([AGENT], 300, now=NOW), 200)
    assert table.repairs == repairs + 1
    assert [balance.settled for balance in table.balances()] == [200]


def test_a_lock_that_was_taken_when_the_machine_stopped_can_be_had_again(
    table: HoldTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if table._file.words[tablefile.H_LOCK] == tablelock.FLOCK:
        pytest.skip("no file keeps such a lock")
    script = """
with table._file:
    print("taken", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", PREAMBLE + script, str(table.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"taken\n"
            os.kill(other.pid, signal.SIGSTOP)  # what it has of the lock stays in the file
            monkeypatch.setattr(tablefile.processes, "boot_id", lambda: b"another boot id!")
            after = HoldTable(table.path)
            after.settle(after.hold([AGENT], 300, now=NOW), 200)
            after.close()
        finally:
            other.kill()


def test_a_table_is_locked_as_its_file_says(table: HoldTable, monkeypatch: pytest.MonkeyPatch) -> None:
    is_mutex = table._file.words[tablefile.H_LOCK] == tablelock.MUTEX
    monkeypatch.setattr(tablefile, "knows_mutex", lambda: not is_mutex)
    if is_mutex:
        with pytest.raises(Unavailable, match="another C library"):
            HoldTable(table.path)
        return
    monkeypatch.setattr(tablefile, "LOCK_SECONDS", 0.05)
    other = HoldTable(table.path)
    with other._file, pytest.raises(Unavailable, match="stayed locked"):
        table.hold([AGENT], 1, now=NOW)
    other.close()


def test_a_closed_table_is_an_error_and_leaves_the_lock_to_others(table: HoldTable) -> None:
    other = HoldTable(table.path)
    with other._file:
        other.close()
    with pytest.raises(ValueError, match="closed"):
        other.hold([AGENT], 1, now=NOW)
    assert table.release(table.hold([AGENT], 1, now=NOW))


def test_a_forked_child_has_a_lock_and_an_identity_of_its_own(table: HoldTable) -> None:
    script = """
with table._file:
    child = os.fork()
    if child == 0:
        os.kill(os.getppid(), signal.SIGKILL)  # the parent dies with the lock
        table.hold([AGENT], 300, now=NOW)
        os._exit(0)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", PREAMBLE + script, str(table.path)], stderr=subprocess.PIPE) as parent:
        assert parent.stderr is not None
        assert parent.stderr.read() == b""  # until the child has ended too
    assert parent.returncode == -signal.SIGKILL
    assert [balance.held for balance in table.balances()] == [300]
    until = time.monotonic() + 60
    while not table.reap(NOW):  # the child's hold is known to be the child's, which may still be on its way out
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_lock_that_is_not_given_back_is_an_error_and_no_hang(
    table: HoldTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tablefile, "LOCK_SECONDS", 0.05)
    other = HoldTable(table.path)
    with other._file, pytest.raises(Unavailable, match="stayed locked"):
        table.hold([AGENT], 1, now=NOW)
    table.hold([AGENT], 1, now=NOW)
    other.close()


def test_threads_share_a_table(table: HoldTable) -> None:
    def work() -> None:
        for _ in range(200):
            table.settle(table.hold([AGENT], 1, now=NOW), 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(balance.settled, balance.held) for balance in table.balances()] == [(800, 0)]


HAMMER = """
CAP = 2_000_000
ALIKE = [Account(name=f"{kind}:prod:x", window="2026-11-18", cap=CAP) for kind in ("agent", "tenant", "project")]

def work(seed):
    chance = random.Random(seed)
    mine = []
    while True:
        run = Account(name=f"run:{chance.randrange(50)}", window="", cap=None)
        try:
            hold = table.hold([*ALIKE, run], chance.randrange(400), now=NOW)
        except LimitExceeded:
            os._exit(7)
        if chance.random() < 0.7:
            table.mark_sent(hold)
        mine.append(hold)
        while len(mine) > 4:
            hold = mine.pop(chance.randrange(len(mine)))
            if chance.random() < 0.2:
                assert table.release(hold)
            else:
                assert table.settle(hold, chance.randrange(hold.amount + 1))
        if chance.random() < 0.01:
            table.drop(table.balances("run:"))

def start(seed):
    child = os.fork()
    if child == 0:
        try:
            work(seed)
        finally:
            os._exit(9)
    return child

chance = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
children = [start(seed) for seed in range(4)]
kills, violations, crashed, seed, spent = 0, [], 0, 100, 0
until, last = time.monotonic() + 2.0, time.monotonic() + 60.0
while time.monotonic() < until or (time.monotonic() < last and not (kills > 20 and spent > 0)):
    time.sleep(chance.random() * 0.02)
    victim = children.pop(chance.randrange(len(children)))
    os.kill(victim, signal.SIGKILL)
    _, status = os.waitpid(victim, 0)
    crashed += os.WIFEXITED(status) and os.WEXITSTATUS(status) == 9
    kills += 1
    seed += 1
    children.append(start(seed))
    table.reap(NOW)
    for balance in table.balances("agent:"):
        spent = balance.settled
        if balance.settled + balance.held > CAP:
            violations.append(balance.settled)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
before = {b.account: b.settled for b in table.balances() if not b.account.startswith("run:")}
table.reap(NOW)
after = [(b.account, b.settled, b.held) for b in table.balances() if not b.account.startswith("run:")]
held = sum(b.held for b in table.balances())
print(json.dumps({"kills": kills, "repairs": table.repairs, "violations": violations, "crashed": crashed,
                  "after": after, "held": held, "open": table.open_holds(), "overruns": table.overruns, "cap": CAP}))
"""


def test_killing_workers_at_random_breaks_nothing(tmp_path: Path) -> None:
    seen = json.loads(python(PREAMBLE + HAMMER, tmp_path / "holds.table"))
    assert seen["kills"] > 20
    assert seen["crashed"] == 0  # no worker met an error of its own
    assert seen["violations"] == []
    assert seen["overruns"] == 0
    assert (seen["open"], seen["held"]) == (0, 0)  # nothing is stuck after the reaper
    settled = [amount for _, amount, _ in seen["after"]]
    assert len(set(settled)) == 1  # each hold was on all three accounts: so was each charge
    assert 0 < settled[0] <= seen["cap"]
