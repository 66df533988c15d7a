"""The ledger: what the hold table's totals are kept in, so that they survive the machine.

The table survives the death of any process. The ledger is for the rest: a power cut, a lost disk, and runs that
wait for days. The control plane's tick writes it; opening the table reads it back.
"""

from __future__ import annotations

import msgspec

from lockgate.clock import Clock, system
from lockgate.limits import store
from lockgate.limits.budgets import as_set, daily_caps
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Balance
from lockgate.limits.windows import day_of, seconds_left
from lockgate.settings import store as settings_store
from lockgate.settings.model import Snapshot
from lockgate.storage.engine import Database

RUN_IDLE_SECONDS = 600.0
"""A run that is not running (it waits for a person, or has ended), and called no model for so long that its token
has expired, moves from the table to the ledger."""

WINDOW_GRACE_SECONDS = 3600.0
"""How long a window's account stays in the table after the window has ended, for calls that began in it."""

RUN_KEPT_SECONDS = 30 * 86_400.0
"""How long the ledger keeps a run's totals."""


class Ledger:
    """Keeps a :class:`HoldTable`'s settled totals in the control database."""

    def __init__(self, control: Database, clock: Clock = system) -> None:
        self._control = control
        self._clock = clock
        self._written: dict[tuple[str, str, str], int] = {}

    def restore(self, table: HoldTable) -> None:
        """Give a new table, or one that lived through a restart of the machine, at least the totals kept here."""
        today = day_of(self._clock())
        with self._control.read() as connection:
            kept = store.in_windows(connection, today)
        table.restore(kept)

    def reopen_run(self, table: HoldTable, run_id: str) -> None:
        """Before a run goes on after a long wait: bring its totals back to the table."""
        with self._control.read() as connection:
            kept = store.named(connection, f"run:{run_id}")
        table.restore(kept)

    def persist(self, table: HoldTable) -> int:
        """Write what changed, and move out of the table what is finished. Returns the number of totals written.

        A crash at any point only repeats it: an account leaves the table after its total is committed, and only if
        it was not used in between.
        """
        now = self._clock()
        if not table.restored:
            self.restore(table)
        balances = table.balances()
        finished = self._without_running([balance for balance in balances if _is_finished(balance, now)])
        leaving = {_key(balance) for balance in finished}
        changed = [
            balance
            for balance in balances
            if _key(balance) in leaving
            or (not _is_run(balance) and self._written.get(_key(balance), 0) != balance.settled)
        ]
        if changed:
            with self._control.write() as connection:
                store.upsert(connection, changed, at=now)
                if finished:
                    store.forget_runs(connection, now - RUN_KEPT_SECONDS)
        self._written.update((_key(balance), balance.settled) for balance in changed)
        table.drop(finished)
        for key in leaving:
            self._written.pop(key, None)
        table.drop_rates(now)
        return len(changed)

    def _without_running(self, idle: list[Balance]) -> list[Balance]:
        """All but the runs that go on, however long their last model call was ago."""
        runs = {balance.account.removeprefix("run:") for balance in idle if _is_run(balance)}
        if not runs:
            return idle
        with self._control.read() as connection:
            running = {f"run:{run_id}" for run_id in store.running(connection, sorted(runs))}
        return [balance for balance in idle if balance.account not in running]

    def balances(self, table: HoldTable | None, prefix: str = "") -> list[Balance]:
        """Every budget of a window that has not ended: the table's view, from the ledger what it has not, and what
        deployed agents may spend today and have not begun to."""
        today = day_of(self._clock())
        with self._control.read() as connection:
            kept = store.in_windows(connection, today)
            known = Snapshot(settings_store.current(connection))
            deployed = [
                (environment, agent, as_set(settings, known, environment, agent))
                for environment, agent, settings in store.deployed(connection)
            ]
        merged = {_key(balance): balance for balance in kept}
        if table is not None:
            merged |= {_key(balance): balance for balance in table.balances()}
        for account in daily_caps(deployed, today):
            key = (account.name, account.window, account.unit)
            found = merged.get(key) or Balance(
                account=account.name, window=account.window, cap=None, settled=0, held=0, unit=account.unit
            )
            merged[key] = msgspec.structs.replace(found, cap=account.cap)
        return [merged[key] for key in sorted(merged) if key[0].startswith(prefix)]


def _key(balance: Balance) -> tuple[str, str, str]:
    return balance.account, balance.window, balance.unit


def _is_run(balance: Balance) -> bool:
    return balance.account.startswith("run:")


def _is_finished(balance: Balance, now: float) -> bool:
    if balance.held:
        return False
    if _is_run(balance):
        return now - balance.touched_at > RUN_IDLE_SECONDS
    return seconds_left(balance.window, now - WINDOW_GRACE_SECONDS) == 0
