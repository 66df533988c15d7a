"""Caps that hold over several machines: each leases slices of a budget from the store, never more than is left.

What a machine has leased is a number in the ledger's row, and the same number in its hold table, which lets nothing be
spent above it. The number in the store is raised first, and lowered last; so at every moment, whoever dies, the sum of
what the tables let be spent is no more than the sum in the store, and that is no more than the cap. The price is that a
machine may turn a call away while another holds a slice that it does not use; slices shrink as the cap comes near, and
what is not used is given back within a second then.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from lockgate.clock import Clock, system
from lockgate.errors import LimitExceeded, Unavailable
from lockgate.limits import store
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account, Balance, Key
from lockgate.limits.refusals import lease_refused
from lockgate.limits.service import Ledger
from lockgate.limits.store import Kept
from lockgate.storage.engine import Database

ALIVE_SECONDS = 10.0
"""A machine that was seen so lately is counted among those that rates are divided between."""

IDLE_SECONDS = 60.0
"""A slice that nobody used for so long goes back."""

_SLICE = 20  # a slice is at most a twentieth of the cap
_SHARE = 4  # and at most a quarter of what is left
_NEAR = 10  # with less than a tenth of the cap left to lease, unused slices go back


class Leases:
    """What one machine leases of shared caps. Used by any of its processes."""

    def __init__(self, control: Database, ledger: Ledger, table: HoldTable, clock: Clock = system) -> None:
        self.machines = 1
        """How many machines there are, as last seen; rates are divided by it."""
        self._control = control
        self._ledger = ledger
        self._table = table
        self._clock = clock
        self._last: dict[Key, int] = {}
        self._looked_at = 0.0

    def grow(self, short: Sequence[tuple[Account, int]]) -> None:
        """Lease so much more that each account's grant reaches what it needs; blocks while the store answers.

        Raises :class:`LimitExceeded` when less is left than that, and Unavailable when the store does not answer:
        what cannot be leased is not spent.
        """
        now = self._clock()
        try:
            for account, needed in sorted(short, key=lambda one: one[0].key):
                with self._ledger.turn():
                    try:
                        granted = self._lease(account, needed, now)
                    except LimitExceeded:
                        self._table.count_refusal(account.key)
                        raise
                    self._table.grant(account.key, granted)
        except SQLAlchemyError as away:
            raise Unavailable(
                "the budget's store does not answer, and this machine has used up what it leased",
                remedy="bring the database back; calls without a shared cap go on",
            ) from away

    def _lease(self, account: Account, needed: int, now: float) -> int:
        cap = account.cap or 0
        with self._control.write() as connection:
            self._say_it_lives(connection, now)
            store.serialise(connection, account.key)
            rows = store.of_account(connection, account.key)
            is_session = account.name.startswith("session:")
            if is_session and not any(row.unused for row in rows):
                store.begin_anew(connection, account.key, at=now)  # it was over on each machine
                rows = []
            own = next((row for row in rows if row.machine == self._ledger.machine), None)
            if is_session and own is not None:  # it was idle here, and went on elsewhere: what it spent here counts
                self._table.restore([own.balance()])
            granted, leased = 0 if own is None else own.taken, sum(row.taken for row in rows)
            left = cap - leased + granted  # for this machine
            if needed > left:
                spent = sum(row.settled for row in rows)
                more = needed - (granted if granted < needed or own is None else own.settled)
                raise lease_refused(account, spent=spent, leased=leased, needed=more, now=now)
            if not needed <= granted <= left:  # above that when the cap was lowered
                granted = needed + min((left - needed) // _SHARE, cap // _SLICE)
                store.set_grant(connection, account.key, self._ledger.machine, granted, at=now)
        return granted

    def _say_it_lives(self, connection: Connection, now: float) -> None:
        """Note that this machine lives. One that was taken for lost takes back first what it was charged with: its
        table knows what it spent."""
        machine = self._ledger.machine
        seen = store.last_seen(connection, machine)
        if seen is not None and seen < now - store.LOST_SECONDS and self._table.restored:
            settled = {balance.key: balance.settled for balance in self._table.balances()}
            store.withdraw_slices(connection, machine, seen, settled)
        store.see_machine(connection, machine, now)

    def look(self) -> None:
        """See how many machines there are; asks the store once a second at most."""
        now = self._clock()
        if abs(now - self._looked_at) >= 1.0:
            self._looked_at = now
            with self._control.read() as connection:
                self.machines = max(1, len(store.living_machines(connection, now - ALIVE_SECONDS)))

    def tick(self, *, leaves: bool = False) -> int:
        """Say that this machine lives, and give back what it has no use for of what it has leased: all that is not
        spent or held when it ``leaves``.

        Returns the number of grants that were changed. Call it every second, in one process of the machine.
        """
        now = self._clock()
        machine = self._ledger.machine
        with self._ledger.turn():
            with self._control.write() as connection:
                self._say_it_lives(connection, now)
                self.machines = max(1, len(store.living_machines(connection, now - ALIVE_SECONDS)))
                taken = store.take_corrections(connection, machine) if self._table.restored else []
            if not self._table.restored:
                return 0
            for key, change in taken:
                self._table.adjust(key, change)
            balances = {balance.key: balance for balance in self._table.balances()}
            with self._control.read() as connection:
                kept = store.in_windows(connection, now)
            leased: dict[Key, int] = {}
            for row in kept:
                leased[row.key] = leased.get(row.key, 0) + row.taken
            own = [row for row in kept if row.machine == machine and row.granted is not None and row.key in balances]
            changed = {row.key: self._keep(row, balances[row.key], leased[row.key], now, leaves) for row in own}
            changed = {row.key: changed[row.key] for row in own if changed[row.key] != row.granted}
            returned = [row.key for row in own if row.settled > balances[row.key].settled]
            self._last = {row.key: balances[row.key].settled for row in own}
            if changed or returned:
                with self._control.write() as connection:
                    for key in returned:  # it was taken for lost, and charged with all that it had leased
                        store.withdraw_slice(connection, key, machine, balances[key].settled)
                    for key, granted in changed.items():
                        store.set_grant(connection, key, machine, granted, at=now)
        return len(changed)

    def _keep(self, row: Kept, balance: Balance, leased: int, now: float, leaves: bool) -> int:
        """Lower this machine's grant to what it has use for; gives what it is then.

        With plenty left to lease that is a slice, for as long as calls come; near the cap what the last second needed.
        So a machine that is lost takes little with it.
        """
        granted = row.granted or 0
        if balance.granted is None:
            return 0  # a new table: nothing can be spent by it before it has leased again
        if balance.cap is None:
            return granted
        used, slice = balance.settled + balance.held, balance.cap // _SLICE
        keep = used + slice if now - balance.touched_at < IDLE_SECONDS else used
        if leaves:
            keep = used
        elif leased > balance.cap - balance.cap // _NEAR:
            keep = used
            if leased <= balance.cap:  # it was not lowered
                keep += 2 * (balance.settled - self._last.get(row.key, balance.settled))
        elif granted <= keep + slice and keep > used:
            keep = granted  # not worth a change
        return self._table.lower_grant(row.key, min(granted, keep))
