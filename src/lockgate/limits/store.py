"""The ledger's SQL: settled totals by account, window and unit."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from sqlalchemy import Connection, and_, case, delete, func, or_, select, update

from lockgate.limits.burn import part
from lockgate.limits.model import Balance, Key, Unit
from lockgate.limits.windows import seconds_left, window_of
from lockgate.storage.schema import deployments, ledger, machines, runs, uncertain_charges
from lockgate.storage.upsert import insert_into
from lockgate.versions.model import AgentSettings

BATCH = "batch"
"""Why a charge is uncertain: it is of a batch that has not ended."""
BATCH_NO_USAGE = "batch_no_usage"
"""Why a charge is uncertain: it is of a batch that has ended, and does not say what it used."""
LOST = "lost"
"""Why a charge is uncertain: the machine that had leased so much was lost."""
LOST_SECONDS = 600.0
"""A machine that was not seen for so long is lost."""

_MANY = 500  # values in one statement
_CORRECTED = " corrected"

_KEY = (ledger.c.account, ledger.c.window, ledger.c.unit, ledger.c.machine)


def upsert(
    connection: Connection, balances: Sequence[Balance], *, at: float, machine: str = "", burn: Mapping[Key, float] = {}
) -> None:
    """Write one machine's settled totals, and where several share the ledger what they show of one another. A total
    never goes down: a late writer cannot undo a newer one; and ``updated_at`` tells when something was last spent."""
    if not balances:
        return
    statement = insert_into(connection, ledger)
    new, old = statement.excluded, ledger.c
    is_more = new.settled > old.settled
    shown = [(new[name], old[name]) for name in ("cap", "held", "refused")]
    statement = statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={name: case((is_more, new[name]), else_=old[name]) for name in ("settled", "burn", "updated_at")}
        | {column.name: value for value, column in shown},
        where=or_(is_more, *(column.is_distinct_from(value) for value, column in shown)),
    )
    rows = [_row(row.key, machine, at, settled=row.settled, burn=burn.get(row.key, 0.0)) for row in balances]
    if machine:
        for row, balance in zip(rows, balances, strict=True):
            row |= {"cap": balance.cap, "held": balance.held, "refused": balance.refused}
    connection.execute(statement, rows)


def adjust(connection: Connection, key: Key, machine: str, change: int, *, at: float | None = None) -> None:
    """Correct a settled total by ``change``; with what others corrected of it, it does not go below nothing. ``at``:
    when what is corrected was spent, for the rate of spending; None when it never was part of that."""
    total = ledger.c.settled + change
    least = -sum(row.settled for row in of_account(connection, key) if row.machine == _beside(machine))
    connection.execute(
        update(ledger).where(*_is(key, machine)).values(settled=case((total < least, least), else_=total))
    )
    if at is not None:
        _slow(connection, key, machine, change, at)


def _slow(connection: Connection, key: Key, machine: str, change: int, at: float) -> None:
    """Correct a machine's rate of spending by ``change``, of what was spent at ``at``."""
    for row in of_account(connection, key):
        if row.machine == machine:
            burn = max(0.0, row.burn + part(change, at, row.updated_at))
            connection.execute(update(ledger).where(*_is(key, machine)).values(burn=burn))


def leave_correction(connection: Connection, key: Key, machine: str, change: int, *, at: float | None) -> None:
    """As :func:`adjust`, for another machine, which is away: in a row beside its own, until it takes that into its
    table. Its own may not tell that spending yet: together they may be less than nothing."""
    own = next((row for row in of_account(connection, key) if row.machine == machine), None)
    if own is None:
        return
    statement = insert_into(connection, ledger)
    statement = statement.on_conflict_do_update(
        index_elements=_KEY, set_={"settled": ledger.c.settled + statement.excluded.settled}
    )
    row = _row(key, _beside(machine), own.updated_at, settled=change)
    connection.execute(statement, [row | {"created_at": own.created_at}])
    if at is not None:
        _slow(connection, key, machine, change, at)


def take_corrections(connection: Connection, machine: str) -> list[tuple[Key, int]]:
    """What others have corrected of this machine's totals, now a part of its rows: its table has to hear of it."""
    columns = (ledger.c.account, ledger.c.window, ledger.c.unit, ledger.c.settled)
    left = connection.execute(delete(ledger).where(ledger.c.machine == _beside(machine)).returning(*columns)).all()
    taken = [((row.account, row.window, row.unit), row.settled) for row in left]
    for key, change in taken:
        adjust(connection, key, machine, change)
        less = ledger.c.granted + change  # others may have leased it since
        connection.execute(update(ledger).where(*_is(key, machine)).values(granted=case((less < 0, 0), else_=less)))
    return taken


def _beside(machine: str) -> str:
    """Whose row has what others corrected of this machine's totals."""
    return machine + _CORRECTED


def in_windows(connection: Connection, now: float, machine: str | None = None) -> list[Kept]:
    """The accounts other than runs' whose window has not ended, or never ends; of one machine, or of all."""
    first = window_of(now - 2 * 86_400.0, "month")  # a month sorts before its days; zones differ by a day at most
    wanted = or_(ledger.c.window == "", ledger.c.window >= first) & ~ledger.c.account.startswith(
        "run:", autoescape=True
    )
    if machine is not None:
        wanted &= ledger.c.machine == machine
    return [kept for kept in _kept(connection, wanted) if seconds_left(kept.key[1], now) != 0]


def since(connection: Connection, begin: float) -> list[Kept]:
    """The accounts of windows that ended after ``begin``, of all machines."""
    wanted = (ledger.c.window >= window_of(begin - 86_400.0, "month")) & ~ledger.c.window.startswith("same ")
    return [kept for kept in _kept(connection, wanted) if seconds_left(kept.key[1], begin) != 0]


def named(connection: Connection, account: str) -> list[Kept]:
    """Everything kept under one account's name."""
    return _kept(connection, ledger.c.account == account)


def of_names(connection: Connection, accounts: Collection[str], machine: str) -> list[Kept]:
    """One machine's rows of all these accounts."""
    names = sorted(accounts)
    found: list[Kept] = []
    for start in range(0, len(names), _MANY):
        some = ledger.c.account.in_(names[start : start + _MANY])
        found += _kept(connection, some & (ledger.c.machine == machine))
    return found


def of_account(connection: Connection, key: Key) -> list[Kept]:
    """One account's rows, one for each machine."""
    return _kept(connection, and_(*_is(key)))


def serialise(connection: Connection, key: Key) -> None:
    """Let nobody else lease of this account until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("\x1f".join(key), 0))))


def set_grant(connection: Connection, key: Key, machine: str, granted: int, *, at: float) -> None:
    """Write down how much of an account's cap a machine may spend."""
    statement = insert_into(connection, ledger)
    statement = statement.on_conflict_do_update(index_elements=_KEY, set_={"granted": granted})
    connection.execute(statement, [_row(key, machine, at, granted=granted)])


def begin_anew(connection: Connection, key: Key, *, at: float) -> None:
    """Count nothing of what was spent of an account until now."""
    connection.execute(update(ledger).where(*_is(key)).values(settled=0, granted=0, updated_at=at))


def charge_slice(connection: Connection, key: Key, machine: str, *, at: float) -> bool:
    """Count all that a machine has leased of an account as spent, and write down how much of that is not known.

    False when there is nothing that it did not spend.
    """
    serialise(connection, key)
    row = next((row for row in of_account(connection, key) if row.machine == machine), None)
    if row is None or row.unused <= 0:
        return False
    connection.execute(update(ledger).where(*_is(key, machine)).values(settled=row.granted))
    charge = {
        "id": secrets.token_hex(8),
        "machine": machine,
        "at": at,
        "reason": LOST,
        "parts": [[*key, row.unused]],
        "tokens": row.unused if key[2] == "tokens" else 0,
    }
    connection.execute(insert_into(connection, uncertain_charges).values(charge))
    return True


def withdraw_slice(connection: Connection, key: Key, machine: str, settled: int) -> None:
    """Undo the last :func:`charge_slice`: the machine is there after all, and has ``settled`` so much. (An earlier one
    is of a table that it lost.)"""
    connection.execute(update(ledger).where(*_is(key, machine)).values(settled=settled))
    charge = uncertain_charges.c
    lost = (charge.machine == machine, charge.reason == LOST, charge.corrected_at.is_(None))
    for row in connection.execute(select(charge.id, charge.parts).where(*lost).order_by(charge.at.desc())).all():
        if tuple(row.parts[0][:3]) == key:
            connection.execute(delete(uncertain_charges).where(charge.id == row.id))
            return


def withdraw_slices(connection: Connection, machine: str, since: float, settled: Mapping[Key, int]) -> None:
    """Undo :func:`charge_slice` for all that the machine was charged with after ``since``, when it was last seen."""
    charge = uncertain_charges.c
    lost = (charge.machine == machine, charge.reason == LOST, charge.corrected_at.is_(None), charge.at > since)
    for parts in connection.execute(select(charge.parts).where(*lost)).scalars().all():
        account, window, unit, _ = parts[0]
        if (account, window, unit) in settled:
            withdraw_slice(connection, (account, window, unit), machine, settled[account, window, unit])


def end_lease(connection: Connection, key: Key, machine: str) -> None:
    """Let a machine have leased no more of an account than it has spent."""
    connection.execute(update(ledger).where(*_is(key, machine)).values(granted=ledger.c.settled))


class BatchCharge(NamedTuple):
    """What stands on one account for a batch that has not ended."""

    key: Key
    amount: int
    machine: str
    at: float


def open_batches(connection: Connection) -> list[BatchCharge]:
    """What stands on accounts for batches that have not ended."""
    charges = uncertain_charges.c
    wanted = select(charges.parts, charges.machine, charges.at)
    found = connection.execute(wanted.where(charges.reason == BATCH, charges.corrected_at.is_(None)))
    return [
        BatchCharge((account, window, unit), amount, row.machine, row.at)
        for row in found
        for account, window, unit, amount in row.parts
    ]


def at_bound(connection: Connection) -> list[list[tuple[Key, int]]]:
    """The parts of each charge that is not corrected, of what has ended."""
    wanted = (uncertain_charges.c.reason != BATCH, uncertain_charges.c.corrected_at.is_(None))
    found = connection.execute(select(uncertain_charges.c.parts).where(*wanted)).scalars()
    return [[((account, window, unit), amount) for account, window, unit, amount in parts] for parts in found]


def see_machine(connection: Connection, machine: str, now: float) -> None:
    """Note that the machine lives."""
    statement = insert_into(connection, machines).values(name=machine, joined_at=now, seen_at=now)
    connection.execute(statement.on_conflict_do_update(index_elements=[machines.c.name], set_={"seen_at": now}))


def say_who_keeps_traces(connection: Connection, machine: str, is_kept: bool) -> Callable[[str], bool]:
    """Note whether this machine's spans are in a database of its own; gives whether another's are where its are."""
    connection.execute(update(machines).where(machines.c.name == machine).values(keeps_traces=is_kept))
    if is_kept:
        return lambda other: other == machine
    apart = set(connection.execute(select(machines.c.name).where(machines.c.keeps_traces)).scalars())
    return lambda other: other not in apart


def last_seen(connection: Connection, machine: str) -> float | None:
    """When the machine was last seen; None for one that never was."""
    return connection.execute(select(machines.c.seen_at).where(machines.c.name == machine)).scalar()


def living_machines(connection: Connection, since: float) -> list[str]:
    """The machines seen since then."""
    wanted = select(machines.c.name).where(machines.c.seen_at >= since).order_by(machines.c.name)
    return list(connection.execute(wanted).scalars())


def running(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Those of the runs that are under way."""
    found: list[str] = []
    for start in range(0, len(run_ids), _MANY):
        some = runs.c.id.in_(run_ids[start : start + _MANY])
        found += connection.execute(select(runs.c.id).where(some, runs.c.status == "running")).scalars()
    return found


def deployed(connection: Connection) -> list[tuple[str, str, AgentSettings]]:
    """(environment, agent, settings) of what is deployed."""
    columns = (deployments.c.environment, deployments.c.agent, deployments.c.settings)
    return [
        (environment, agent, msgspec.convert(settings, AgentSettings))
        for environment, agent, settings in connection.execute(select(*columns).order_by(*columns[:2]))
    ]


def forget_runs(connection: Connection, before: float) -> int:
    """Delete the totals of runs and sessions not written since ``before``."""
    passing = or_(*(ledger.c.account.startswith(kind, autoescape=True) for kind in ("run:", "session:")))
    old = passing & (ledger.c.updated_at < before)
    return connection.execute(delete(ledger).where(old)).rowcount


class Kept(NamedTuple):
    """A row of the ledger."""

    key: Key
    machine: str
    settled: int
    granted: int | None
    burn: float
    cap: int | None
    held: int
    refused: int
    created_at: float
    updated_at: float

    @property
    def owner(self) -> str:
        """The machine whose spending it is a part of."""
        return self.machine.removesuffix(_CORRECTED)

    @property
    def unused(self) -> int:
        """What is leased and, as far as is known here, not spent."""
        return 0 if self.granted is None else max(0, self.granted - self.settled)

    @property
    def taken(self) -> int:
        """What of a cap is gone: what is leased, or what is spent when that is more."""
        return self.settled + self.unused

    def balance(self, settled: int | None = None) -> Balance:
        """As a balance, of which holds are not known, nor refusals."""
        return Balance(
            account=self.key[0],
            window=self.key[1],
            cap=self.cap,
            settled=self.settled if settled is None else settled,
            held=0,
            unit=cast(Unit, self.key[2]),
            touched_at=self.updated_at,
        )


def _kept(connection: Connection, condition: Any) -> list[Kept]:
    rows = connection.execute(select(ledger).where(condition).order_by(*_KEY))
    return [
        Kept(
            (row.account, row.window, row.unit), row.machine, row.settled, row.granted, row.burn, row.cap, row.held,
            row.refused, row.created_at, row.updated_at,
        )
        for row in rows
    ]  # fmt: skip


def _is(key: Key, machine: str | None = None) -> list[Any]:
    found = [ledger.c.account == key[0], ledger.c.window == key[1], ledger.c.unit == key[2]]
    return found if machine is None else [*found, ledger.c.machine == machine]


def _row(key: Key, machine: str, at: float, **figures: Any) -> dict[str, Any]:
    return {
        "account": key[0],
        "window": key[1],
        "unit": key[2],
        "machine": machine,
        "settled": 0,
        "granted": None,
        "burn": 0.0,
        "cap": None,
        "held": 0,
        "refused": 0,
        "created_at": at,
        "updated_at": at,
        **figures,
    }
