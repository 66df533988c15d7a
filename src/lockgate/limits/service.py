"""The ledger: what the hold table's totals are kept in, so that they survive the machine.

The table survives the death of any process. The ledger is for the rest: a power cut, a lost disk, and runs that
wait for days. The control plane's tick writes it; opening the table reads it back.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from lockgate.clock import Clock, system
from lockgate.limits import store
from lockgate.limits.budgets import as_set, daily_caps
from lockgate.limits.burn import faded, of_its_life, part
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account, Balance, Key
from lockgate.limits.refusals import SAME
from lockgate.limits.windows import day_of, seconds_left
from lockgate.money import Nano
from lockgate.settings import store as settings_store
from lockgate.settings.model import Snapshot
from lockgate.storage.engine import Database
from lockgate.versions.model import AgentSettings

RUN_IDLE_SECONDS = 600.0
"""A run that is not running (it waits for a person, or has ended), and called no model for so long that its token
has expired, moves from the table to the ledger."""

WINDOW_GRACE_SECONDS = 3600.0
"""How long a window's account stays in the table after the window has ended, for calls that began in it."""

SESSION_IDLE_SECONDS = 1800.0
"""A session that was idle for so long is over, and its budget with it."""

RUN_KEPT_SECONDS = 30 * 86_400.0
"""How long the ledger keeps a run's totals."""


class Ledger:
    """Keeps a :class:`HoldTable`'s settled totals in the control database.

    ``machine`` is this machine's name where several share that database; ``lock`` is the file that the processes of
    one machine take turns with when they change what it has written there.
    """

    def __init__(
        self, control: Database, clock: Clock = system, *, machine: str = "", lock: Path | None = None
    ) -> None:
        self.machine = machine
        self._control = control
        self._clock = clock
        self._lock = lock
        self._written: dict[Key, tuple[int | None, ...]] = {}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """No other process of this machine writes to the ledger in this block."""
        if self._lock is None:
            yield
            return
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def restore(self, table: HoldTable) -> None:
        """Give a new table, or one that lived through a restart of the machine, at least the totals kept here.

        What it had leased counts as spent: how much of that it was is not known, and is written down as uncertain.
        """
        now = self._clock()
        with self.turn():
            if table.restored:
                return  # another process of this machine was first, and may have leased since
            with self._control.read() as connection:
                kept = store.in_windows(connection, now, self.machine)
            if self.machine:
                with self._control.write() as connection:
                    store.see_machine(connection, self.machine, now)
                    for row in kept:
                        if row.unused:
                            store.charge_slice(connection, row.key, self.machine, at=now)
            table.restore([row.balance(max(row.settled, row.granted or 0)) for row in kept])

    def reopen_run(self, table: HoldTable, run_id: str) -> None:
        """Before a run goes on after a long wait: bring its totals back to the table."""
        with self._control.read() as connection:
            kept = store.named(connection, f"run:{run_id}")
        table.restore([row.balance() for row in kept])

    def persist(self, table: HoldTable) -> int:
        """Write what changed, and move out of the table what is finished. Returns the number of totals written.

        A crash at any point only repeats it: an account leaves the table after its total is committed, and only if
        it was not used in between.
        """
        now = self._clock()
        if not table.restored:
            self.restore(table)
        with self.turn():
            balances = [balance for balance in table.balances() if balance.unit != "concurrent"]
            finished = self._without_running([balance for balance in balances if _is_finished(balance, now)])
            leaving = {balance.key for balance in finished}
            changed = [
                balance
                for balance in balances
                if balance.key in leaving
                or (self._is_kept(balance) and self._written.get(balance.key, (0,)) != self._shown(balance))
            ]
            changed = [balance for balance in changed if not balance.window.startswith(SAME)]
            if changed:
                with self._control.write() as connection:
                    burn = self._burns(connection, changed, now)
                    store.upsert(connection, changed, at=now, machine=self.machine, burn=burn)
                    if finished:
                        store.forget_runs(connection, now - RUN_KEPT_SECONDS)
        self._written.update((balance.key, self._shown(balance)) for balance in changed)
        table.drop(finished)
        for key in leaving:
            self._written.pop(key, None)
        table.drop_rates(now)
        return len(changed)

    def _is_kept(self, balance: Balance) -> bool:
        """Whether others need to know it while it is in the table: what lasts, and a run of Lockgate's, which may go on
        on another machine."""
        is_own_run = _is_run(balance) and "/" not in balance.account  # no caller named it
        return not _is_passing(balance) or (bool(self.machine) and is_own_run)

    def _shown(self, balance: Balance) -> tuple[int | None, ...]:
        """What of it is written down."""
        return (balance.settled, *((balance.held, balance.refused, balance.cap) if self.machine else ()))

    def _burns(self, connection: Connection, changed: Sequence[Balance], now: float) -> dict[Key, float]:
        """How fast each account is spent from, units a second. The ledger tells what that was before: any process may
        have corrected it since."""
        lasting = [balance for balance in changed if not _is_passing(balance)]
        before = {row.key: row for row in store.of_names(connection, {one.account for one in lasting}, self.machine)}
        rates = {}
        for balance in lasting:
            row = before.get(balance.key)
            was, rate = (0, 0.0) if row is None else (row.settled, faded(row.burn, row.updated_at, now))
            rates[balance.key] = rate + part(max(0, balance.settled - was), now, now)
        return rates

    def _without_running(self, idle: list[Balance]) -> list[Balance]:
        """All but the runs that go on, however long their last model call was ago."""
        runs = {balance.account.removeprefix("run:") for balance in idle if _is_run(balance)}
        if not runs:
            return idle
        with self._control.read() as connection:
            running = {f"run:{run_id}" for run_id in store.running(connection, sorted(runs))}
        return [balance for balance in idle if balance.account not in running]

    def balances(
        self,
        table: HoldTable | None,
        prefix: str = "",
        *,
        capped: Iterable[Account] = (),
        day: Callable[[str], str] | None = None,
    ) -> list[Balance]:
        """Every budget of a window that has not ended: the table's view, from the ledger what it has not (other
        machines' spending too), and what deployed agents and ``capped`` may spend and have not begun to.

        What is charged for batches that have not ended is held, as whoever looks understands it.
        """
        now = self._clock()
        with self._control.read() as connection:
            kept = store.in_windows(connection, now)
            known = Snapshot(settings_store.current(connection))
            deployed = [
                (environment, agent, as_set(settings, known, environment, agent))
                for environment, agent, settings in store.deployed(connection)
            ]
            batches = store.open_batches(connection)
            living = set(store.living_machines(connection, now - store.LOST_SECONDS)) - {self.machine}
        found: dict[Key, Balance] = {}
        for balance in () if table is None else table.balances():
            if not balance.window.startswith(SAME):
                found[balance.key] = balance
        here = set(found)
        for row in kept:
            if row.key in here and row.machine == self.machine:
                continue  # the table knows better
            before = found.get(row.key) or row.balance(0)
            found[row.key] = msgspec.structs.replace(
                before,
                settled=before.settled + row.settled,
                held=before.held + (row.held if row.machine in living else 0),
                refused=before.refused + row.refused,
                cap=before.cap if row.key in here or before.cap is not None else row.cap,
            )
        for batch in batches:
            if batch.key in found:
                one = found[batch.key]
                amount = min(batch.amount, one.settled)
                found[batch.key] = msgspec.structs.replace(one, settled=one.settled - amount, held=one.held + amount)
        for account in (*daily_caps(deployed, day or (lambda _: day_of(now))), *capped):
            balance = found.get(account.key) or Balance(
                account=account.name, window=account.window, cap=None, settled=0, held=0, unit=account.unit
            )
            found[account.key] = msgspec.structs.replace(balance, cap=account.cap)
        return [found[key] for key in sorted(found) if key[0].startswith(prefix)]

    def at_bound(self, keys: Collection[Key]) -> tuple[int, Nano]:
        """How many charges on these accounts are at their bound, as what they are for did not say what it used; and
        how much they come to."""
        with self._control.read() as connection:
            charges = store.at_bound(connection)
        amounts = [
            max(amount for key, amount in parts if key[2] == "usd")
            for parts in charges
            if any(key in keys and key[2] == "usd" for key, _ in parts)
        ]
        return len(amounts), sum(amounts)

    def deployed(self) -> dict[tuple[str, str], AgentSettings]:
        """The settings of what is deployed, as they are in force, by environment and agent."""
        with self._control.read() as connection:
            known = Snapshot(settings_store.current(connection))
            return {
                (environment, agent): as_set(settings, known, environment, agent)
                for environment, agent, settings in store.deployed(connection)
            }

    def burning(self) -> dict[Key, float]:
        """How fast each budget is being spent, units a second, over all machines; what is held for batches is not."""
        now = self._clock()
        with self._control.read() as connection:
            kept = store.in_windows(connection, now)
            batches = store.open_batches(connection)
        held: dict[tuple[Key, str], float] = defaultdict(float)
        for batch in batches:
            held[batch.key, batch.machine] += part(batch.amount, batch.at, now)
        rates: dict[Key, float] = defaultdict(float)
        since: dict[Key, float] = {}
        for row in kept:
            rates[row.key] += faded(row.burn, row.updated_at, now) - held[row.key, row.machine]
            since[row.key] = min(since.get(row.key, now), row.created_at)
        return {key: of_its_life(rate, since[key], now) for key, rate in rates.items()}


def _is_passing(balance: Balance) -> bool:
    return balance.account.startswith(("run:", "session:"))


def _is_run(balance: Balance) -> bool:
    return balance.account.startswith("run:")


def _is_finished(balance: Balance, now: float) -> bool:
    if balance.held:
        return False
    if _is_passing(balance):
        idle = RUN_IDLE_SECONDS if _is_run(balance) else SESSION_IDLE_SECONDS
        return now - balance.touched_at > idle
    return seconds_left(balance.window, now - WINDOW_GRACE_SECONDS) == 0
