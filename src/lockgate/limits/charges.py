"""Calls that were charged at their bound, because what they used was not known, and their correction later."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from lockgate.clock import Clock, system
from lockgate.errors import NotFound
from lockgate.limits import store
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Charged, Key
from lockgate.limits.reconcile import Paid
from lockgate.limits.refusals import SAME
from lockgate.limits.service import Ledger
from lockgate.limits.windows import window_of
from lockgate.money import Nano
from lockgate.storage.engine import Database
from lockgate.storage.schema import uncertain_charges
from lockgate.storage.upsert import insert_into

_WITHOUT_SPAN = ("died", store.BATCH, store.BATCH_NO_USAGE, store.LOST)
"""Why charges are uncertain whose calls left no span that tells their cost."""
_SPAN_SECONDS = 60.0
"""After so long a span is surely written down."""


def alert_key(charge_id: str) -> str:
    """The key of the alert that says that somebody has to correct this one."""
    return f"charge:{charge_id}"


class Charge(NamedTuple):
    """One of them. ``parts`` are the accounts it stands on, and with how much."""

    id: str
    at: float
    reason: (
        str  # died | no_usage | batch (not ended yet) | batch_no_usage | lost (a slice that a lost machine had leased)
    )
    parts: tuple[tuple[Key, int], ...]
    tokens: int
    machine: str | None = None  # on whose accounts; None for this one's


class Used(NamedTuple):
    """What a call really used, as its provider says; ``calls`` of a lost machine, how many it made. None: not known, so
    that stays as it is charged."""

    nano: Nano
    tokens: int | None
    calls: int | None = 0


class BesideSpans(NamedTuple):
    """What accounts have that no span tells."""

    untraced: list[tuple[Key, int]]
    """What stands on them for calls that left none."""
    corrected: list[tuple[Key, int]]
    """What corrections changed of calls whose span tells their bound (less than nothing, as a rule)."""
    moving: list[tuple[Key, int]]
    """What a span may tell all the same, or may not tell yet."""


class Charges:
    """Keeps and corrects them, for the accounts of one machine."""

    def __init__(self, control: Database, ledger: Ledger, table: HoldTable, clock: Clock = system) -> None:
        self._control = control
        self._ledger = ledger
        self._table = table
        self._clock = clock
        self._reaped: list[Charged] = []  # charged, and not written down: the store was away

    def reap(self) -> int:
        """End the holds of dead processes; those that were charged are written down. Returns how many ended."""
        ended = self._table.reap(self._clock(), self._reaped)
        if self._reaped:
            with self._control.write() as connection:
                for one in self._reaped:
                    name = (one.tag & (2**64 - 1)).to_bytes(8, "big").hex() if one.tag else secrets.token_hex(8)
                    self.keep(connection, Charge(name, one.created_at, "died", one.parts, one.tokens))
            self._reaped = []
        return ended

    def note(self, calls: Iterable[Paid]) -> int:
        """Write down the calls whose spans say that they were charged at their bound, on the accounts of the machine
        that made them: this one, or one that is lost. Returns how many were new."""
        new, now = 0, self._clock()
        here = {balance.key for balance in self._table.balances() if not balance.window.startswith(SAME)}
        with self._control.write() as connection:
            accounts = {self._ledger.machine: here}
            living = set(store.living_machines(connection, now - store.LOST_SECONDS))
            for row in store.in_windows(connection, now):
                if row.machine == self._ledger.machine or row.machine not in living:
                    accounts.setdefault(row.machine, set()).add(row.key)
            zones = {window.partition(" ")[2] or "UTC" for keys in accounts.values() for _, window, _ in keys if window}
            for call in calls:
                machine = self._ledger.machine if call.machine is None else call.machine
                if machine not in accounts or not call.is_bound:
                    continue
                here = accounts[machine]
                windows = {window_of(call.at, period, zone) for zone in zones for period in ("day", "month")}
                names = [*call.names(), *([f"run:{call.run_id}"] if call.run_id else [])]
                keys = [(name, window, "usd") for name in names for window in ("", *sorted(windows))]
                parts = tuple((key, call.cost_nano) for key in keys if key in here)
                if parts:
                    charge = Charge(call.span_id, call.at, "no_usage", parts, call.tokens, call.machine)
                    new += self.keep(connection, charge)
        return new

    def open(self) -> list[Charge]:
        """Those that are not corrected yet, of this machine and of lost ones, oldest first."""
        with self._control.read() as connection:
            return _charges(connection, *self._in_reach(connection))

    def elsewhere(self) -> list[str]:
        """The machines that have some which only they can correct."""
        with self._control.read() as connection:
            here = {charge.id for charge in _charges(connection, *self._in_reach(connection))}
            every = _charges(connection, uncertain_charges.c.corrected_at.is_(None))
        return sorted({charge.machine or "" for charge in every if charge.id not in here})

    def reaches(self, machine: str) -> bool:
        """Whether a batch that ``machine`` made is this one's to settle: its own, and what a lost one left."""
        if machine == self._ledger.machine:
            return True
        with self._control.read() as connection:
            return machine not in store.living_machines(connection, self._clock() - store.LOST_SECONDS)

    def _in_reach(self, connection: Connection) -> list[ColumnElement[bool]]:
        """Which charges can be corrected here: a living machine's table is out of others' reach. Of a lost one that was
        charged with what it had leased, single calls are not: they may be part of that."""
        now, charge = self._clock(), uncertain_charges.c
        is_lost = charge.machine.not_in(store.living_machines(connection, now - store.LOST_SECONDS))
        unclear = {row.machine for row in store.in_windows(connection, now) if row.unused}
        unclear |= set(connection.execute(select(charge.machine).where(charge.reason == store.LOST)).scalars())
        outlives = charge.reason.in_((store.LOST, store.BATCH, store.BATCH_NO_USAGE))
        return [
            or_(charge.machine == self._ledger.machine, and_(is_lost, or_(outlives, charge.machine.not_in(unclear)))),
            uncertain_charges.c.corrected_at.is_(None),
        ]

    def beside_spans(self, connection: Connection, is_traced: Callable[[str], bool], now: float) -> BesideSpans:
        """What the accounts have that no span tells, of the machines whose spans are here."""
        found = BesideSpans([], [], [])
        for row in connection.execute(select(uncertain_charges)):
            if not is_traced(row.machine):
                continue
            is_open = row.corrected_at is None
            for account, window, unit, charged in row.parts:
                if unit != "usd":
                    continue
                key, stands = (account, window, unit), charged if is_open else row.used_nano
                if row.reason == store.BATCH and not is_open:  # its span was made when it had ended, and tells this
                    if now - row.corrected_at < _SPAN_SECONDS:
                        found.moving.append((key, stands))
                elif row.reason in _WITHOUT_SPAN:
                    found.untraced.append((key, stands))
                    if row.reason == store.LOST:  # calls of the machine that have a span may be part of it
                        found.moving.append((key, stands))
                else:
                    found.corrected.append((key, stands - charged))
        return found

    def correct(self, charge_id: str, used: Used) -> None:
        """Charge what the call really used, in place of its bound; once. :class:`NotFound` when there is no such
        charge, or it was corrected before."""
        with self._ledger.turn():
            with self._control.write() as connection:
                charge = self._end(connection, charge_id, used)
                amounts = {"usd": used.nano, "tokens": used.tokens}
                if charge.reason == store.LOST:
                    amounts["calls"] = used.calls
                given = {unit: amount for unit, amount in amounts.items() if amount is not None}
                changes = [
                    (key, given.get(key[2], charged) - charged) for key, charged in charge.parts if key[2] in amounts
                ]
                machine, is_own = charge.machine or "", charge.machine == self._ledger.machine
                at = None if charge.reason == store.LOST else charge.at
                # Its table, if it comes back with it, has what it was charged with itself, and not what others did.
                in_table = at is not None or (store.last_seen(connection, machine) or 0.0) >= charge.at
                for key, change in changes:
                    if is_own or not in_table:
                        store.adjust(connection, key, machine, change, at=at)
                    else:
                        store.leave_correction(connection, key, machine, change, at=at)
                    if not in_table:
                        store.end_lease(connection, key, machine)
            for key, change in changes if is_own else ():  # once it is written down: nothing is given back twice
                self._table.adjust(key, change)

    def _end(self, connection: Connection, charge_id: str, used: Used) -> Charge:
        """Write down what a charge came to. Several machines may be about to: one of them does it."""
        wanted = (uncertain_charges.c.id == charge_id, *self._in_reach(connection))
        found = _charges(connection, *wanted)
        ended = update(uncertain_charges).where(*wanted)
        tokens = uncertain_charges.c.tokens if used.tokens is None else used.tokens
        ended = ended.values(corrected_at=self._clock(), used_nano=used.nano, used_tokens=tokens)
        if not found or not connection.execute(ended).rowcount:
            remedy = "lockgate budgets charges, on the machine that made the call where several share the database"
            raise NotFound(f"no charge {charge_id!r} waits for a correction here", remedy=remedy)
        return found[0]

    def leave_batch(self, connection: Connection, charge_id: str) -> None:
        """A batch has ended, and what it used is not known: it is no longer held, it is spent."""
        charge = uncertain_charges.c
        is_open = (charge.id == charge_id, charge.reason == store.BATCH, charge.corrected_at.is_(None))
        connection.execute(update(uncertain_charges).where(*is_open).values(reason=store.BATCH_NO_USAGE))

    def correct_all(self, figure: Callable[[Charge], Used | None]) -> int:
        """Ask for each what it used, and correct those of which that is known. Returns how many were."""
        done = 0
        for charge in self.open():
            used = figure(charge)
            if used is not None:
                with contextlib.suppress(NotFound):  # somebody else was first
                    self.correct(charge.id, used)
                    done += 1
        return done

    def keep(self, connection: Connection, charge: Charge) -> int:
        """Write one down, unless it is there. Returns how many were new."""
        row = {
            "id": charge.id,
            "machine": self._ledger.machine if charge.machine is None else charge.machine,
            "at": charge.at,
            "reason": charge.reason,
            "parts": [[*key, amount] for key, amount in charge.parts],
            "tokens": charge.tokens,
        }
        statement = insert_into(connection, uncertain_charges).values(row).on_conflict_do_nothing()
        return len(connection.execute(statement.returning(uncertain_charges.c.id)).all())


def _charges(connection: Connection, *conditions: object) -> list[Charge]:
    rows: Sequence[object] = connection.execute(
        select(uncertain_charges).where(*conditions).order_by(uncertain_charges.c.at)  # type: ignore[arg-type]
    ).all()
    return [
        Charge(row.id, row.at, row.reason, tuple(((a, w, u), n) for a, w, u, n in row.parts), row.tokens, row.machine)  # type: ignore[attr-defined]
        for row in rows
    ]
