"""Many processes, many calls at once, kills and errors: no cap is passed, and nothing is charged that was not used.

A stand-in for a provider writes down what each call really used, by the call's number. After the storm the charges of
the dead are corrected by that record; then every total must be exactly what was used. The short form is a few seconds;
the long one, eight processes with sixty-four calls each, runs with the integrations.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lockgate.limits.charges import Charge, Charges, Used
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.leases import Leases
from lockgate.limits.service import Ledger
from lockgate.storage.engine import Database, open_database

SHORT, LONG = (4, 16, 2.0, 250_000), (8, 64, 20.0, 25_000_000)  # processes, calls at once, seconds, cap

WORKER = """
import asyncio, json, os, random, sys
from pathlib import Path
from lockgate.errors import LimitExceeded, Unavailable
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.leases import Leases
from lockgate.limits.model import Account, LeaseNeeded
from lockgate.limits.service import Ledger
from lockgate.limits.windows import day_of
from lockgate.storage.engine import open_database
import time

folder, url, machine, seed, at_once, cap = sys.argv[1:7]
folder, chance, cap = Path(folder), random.Random(int(seed)), int(cap)
table = HoldTable(folder / f"{machine}.table")
leases = None
if url:
    control = open_database(url, "control")
    leases = Leases(control, Ledger(control, machine=machine, lock=folder / f"{machine}.lock"), table)
day = day_of(time.time())
ALL = [Account(name=name, window=day, cap=cap, unit=unit, leased=leases is not None)
       for name in ("tenant:prod:acme", "project:prod") for unit in ("usd", "tokens")]
SLOTS = Account(name="tenant:prod:acme", window="", cap=1000, unit="concurrent")
used = os.open(folder / "used.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def call():
    while True:
        run = Account(name=f"run:{machine}{chance.randrange(40)}", window="", cap=None)
        bound, tag = chance.randrange(1, 4000), chance.getrandbits(62) | 1
        while True:
            try:
                hold = table.hold([*ALL, SLOTS, run], bound, tokens=bound, now=time.time(), tag=tag)
                break
            except LeaseNeeded as needed:
                try:
                    await asyncio.to_thread(leases.grow, needed.short)
                except LimitExceeded:
                    await asyncio.sleep(0.05)
            except LimitExceeded:
                await asyncio.sleep(0.05)
        fate, cost = chance.random(), chance.randrange(bound + 1)
        if fate < 0.1:                      # the client left before the call was sent
            table.release(hold)
            continue
        table.mark_sent(hold)
        await asyncio.sleep(chance.random() * 0.005)
        if fate < 0.2:                      # the provider said no: it used nothing
            table.release(hold)
            continue
        os.write(used, json.dumps([tag, cost]).encode() + b"\\n")   # from here on the provider has billed it
        await asyncio.sleep(chance.random() * 0.005)
        table.settle(hold, cost, tokens=cost)

async def main():
    await asyncio.gather(*(call() for _ in range(int(at_once))))

asyncio.run(main())
"""


class Machine:
    """One machine of the storm: its table, its workers, and its reaper."""

    def __init__(self, folder: Path, name: str, url: str, control: Database) -> None:
        self.folder, self.name, self.url = folder, name, url
        self.table = HoldTable(folder / f"{name}.table")
        self.table.restore([])
        self.ledger = Ledger(control, machine=name if url else "", lock=folder / f"{name}.lock")
        self.charges = Charges(control, self.ledger, self.table)
        self.leases = Leases(control, self.ledger, self.table) if url else None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, seed: int, at_once: int, cap: int) -> None:
        arguments = [str(self.folder), self.url, self.name, str(seed), str(at_once), str(cap)]
        self.workers.append(subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stderr=subprocess.PIPE))

    def kill(self, number: int) -> None:
        worker = self.workers.pop(number % len(self.workers))
        assert worker.poll() is None, worker.stderr.read().decode() if worker.stderr else ""
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=60)

    def tick(self) -> None:
        self.charges.reap()
        self.ledger.persist(self.table)
        if self.leases is not None:
            self.leases.tick()

    def totals(self, part: str = "settled") -> dict[tuple[str, str], int]:
        return {
            (one.account, one.unit): getattr(one, part)
            for one in self.table.balances()
            if not one.account.startswith("run:") and one.unit != "concurrent"
        }


def storm(folder: Path, machines: list[Machine], workers: int, at_once: int, seconds: float, cap: int) -> list[int]:
    """Kill a worker every now and then, and look at the caps all the time. Gives what was seen spent and held."""
    seed, seen = 0, list[int]()
    for machine in machines:
        for _ in range(workers // len(machines)):
            seed += 1
            machine.start(seed, at_once, cap)
    record = folder / "used.jsonl"
    begun = time.monotonic() + 120.0
    while not record.exists() or record.stat().st_size < 500:  # processes take a moment to begin
        assert time.monotonic() < begun
        time.sleep(0.05)
    until = time.monotonic() + seconds
    next_kill = time.monotonic()
    while time.monotonic() < until:
        time.sleep(0.1)
        for machine in machines:
            machine.tick()
        seen.append(
            sum(one.settled + one.held for m in machines for one in m.table.balances("project:") if one.unit == "usd")
        )
        if time.monotonic() > next_kill:
            next_kill += max(0.5, seconds / 20)
            seed += 1
            machine = machines[seed % len(machines)]
            machine.kill(0)  # the one that has lived longest
            machine.start(seed + 100, at_once, cap)
    for machine in machines:
        while machine.workers:
            machine.kill(0)
    return seen


@pytest.mark.parametrize("size", [SHORT, pytest.param(LONG, marks=pytest.mark.integration_only)], ids=["short", "long"])
@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgresql, two gateways"])
def test_no_cap_is_passed_and_in_the_end_only_what_was_used_is_spent(
    tmp_path: Path, request: pytest.FixtureRequest, shared: bool, size: tuple[int, int, float, int]
) -> None:
    if shared:
        url: str = request.getfixturevalue("postgres_database")
        control = open_database(url, "control")
        machines = [Machine(tmp_path, name, url, control) for name in ("a", "b")]
    else:
        control = open_database(tmp_path / "control.db", "control")
        machines = [Machine(tmp_path, "a", "", control)]
    cap = size[3]
    seen = storm(tmp_path, machines, *size)
    until = time.monotonic() + 60
    while any(machine.table.open_holds() for machine in machines):
        for machine in machines:
            machine.tick()
        assert time.monotonic() < until, "holds of the dead were not ended"
    assert max(seen) <= cap
    for machine in machines:
        assert not any(machine.totals("held").values())
        assert machine.table.overruns == 0
    used = dict(json.loads(line) for line in (tmp_path / "used.jsonl").read_text().splitlines())
    assert len(used) > 10

    charged = {key: sum(machine.totals()[key] for machine in machines) for key in machines[0].totals()}
    for key, total in charged.items():
        assert sum(used.values()) <= total <= cap, key  # what is not known is charged in full

    def figure(charge: Charge) -> Used:
        amount = used.get(int(charge.id, 16), 0)
        return Used(amount, amount)

    corrected = sum(machine.charges.correct_all(figure) for machine in machines)
    print(f"{len(used)} calls used {sum(used.values())} of {cap}; {corrected} charges corrected; most seen {max(seen)}")
    for key in charged:
        assert sum(machine.totals()[key] for machine in machines) == sum(used.values()), key
    for machine in machines:
        machine.tick()
        machine.table.close()
    kept = Ledger(control, machine="none").balances(None)
    spent = {(one.account, one.unit): one.settled for one in kept if not one.account.startswith("run:")}
    assert spent == dict.fromkeys(charged, sum(used.values()))
    control.close()
