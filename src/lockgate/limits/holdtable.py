"""The hold table: budgets that all worker processes of a machine share, and that a killed worker cannot break.

A hold reserves money (and tokens, and a call) on several accounts at once, or on none. So what is settled and held
never passes a cap, however many processes ask at the same time; microseconds each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lockgate.errors import InputError
from lockgate.limits import processes
from lockgate.limits.buckets import Buckets, Refusal
from lockgate.limits.model import Account, Balance, Charged, Hold, Key, LeaseNeeded, Rate
from lockgate.limits.records import (
    A_BEGAN,
    A_CAP,
    A_GENERATION,
    A_GRANT,
    A_HELD,
    A_OPEN,
    A_REFUSED,
    A_SETTLED,
    A_TOUCHED,
    CALLS,
    CONCURRENT,
    FIGURES_AT,
    MAX_ACCOUNTS,
    NOBODY,
    OPEN,
    RATE,
    S_CREATED,
    S_GENERATION,
    S_PID,
    S_SENT,
    S_STARTED,
    S_TAG,
    S_TOKENS,
    UNCAPPED,
    UNIT_CODES,
    UNLEASED,
    USED,
    Change,
    Records,
    figures,
    slot_at,
)
from lockgate.limits.refusals import budget_exceeded, rate_refused
from lockgate.limits.tablefile import H_OVERRUNS, H_REPAIRS, H_RESTORED
from lockgate.money import Nano

STALE_SECONDS = 3600.0
"""A hold this old is reaped although its process lives, or it is no process's: no model call takes an hour."""

_KNOWN = 8192  # accounts a process remembers the place of

_Place = tuple[int, int, int, int, int, int, int, bool]
"""Of an account: the word of its generation and what that was (with another one the record is another account's), its
base, the bytes of its figures, the code of its unit; its cap as it is stored and as it is compared with, and whether
it is leased."""

MOST = 1 << 46
"""Of one hold, in nano-USD or tokens: a full table of such holds still fits into an account's 64 bits."""


class HoldTable:
    """The table in the file at ``path``, made when it is not there.

    Threads share one; each process opens its own (a forked child's is opened again by itself). Amounts are integers:
    nano-USD for accounts of unit ``usd``, tokens for ``tokens``, one for ``calls``. Every method raises
    :class:`~lockgate.errors.Unavailable` when the table stays locked for five seconds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records = Records(path)
        self._file = self._records.file
        self._words = self._records.words
        self._buckets = Buckets(self._records)
        self._known: dict[Account, _Place] = {}

    def close(self) -> None:
        self._file.close()

    # --- holds ----------------------------------------------------------------------------------------------------

    def hold(
        self,
        accounts: Sequence[Account],
        amount: Nano,
        *,
        now: float,
        tokens: int = 0,
        rates: Sequence[Rate] = (),
        tag: int = 0,
    ) -> Hold:
        """Reserve ``amount`` nano-USD, ``tokens`` and one call on all of the accounts and rates, or on none.

        Raises :class:`InputError` for more than :data:`MOST`;
        :class:`LimitExceeded`, naming the first account whose cap would be passed, its cap and what is left;
        and :class:`LeaseNeeded` when only what this machine has leased of a cap is too little. ``tag`` is a number of
        the caller's (63 bits) that a hold charged by :meth:`reap` is told by.
        """
        if amount < 0 or tokens < 0:
            raise ValueError(f"a hold is not negative: amount {amount!r}, tokens {tokens!r}")
        if amount > MOST or tokens > MOST:
            raise InputError(
                f"it could cost {amount / 1e9:.6g} USD and {tokens} tokens: more than any budget counts at once",
                remedy="ask for fewer answers, and shorter ones",
            )
        if len(accounts) + len(rates) > MAX_ACCOUNTS:
            raise ValueError(f"a hold names at most {MAX_ACCOUNTS} accounts, not {len(accounts) + len(rates)}")
        words, records, known = self._words, self._records, self._known
        raw = records.raw
        stamp = int(now * 1e9)
        amounts = (amount, tokens, 1, 1)
        parts: list[int] = []
        changes: list[Change] = []
        short: list[tuple[Account, int]] = []
        empty: Refusal | None = None
        refused: Balance | None = None
        with self._file:
            for account in accounts:
                place = known.get(account)
                if place is None or words[place[0]] != place[1]:
                    place = self._find(account)
                _, _, base, figures_at, unit, stored_cap, cap, is_leased = place
                was_cap, settled, held, open_holds, _, granted = figures(raw, figures_at)
                if was_cap != stored_cap:
                    words[base + A_CAP] = stored_cap
                    if is_leased and stored_cap < was_cap:  # what was leased of the higher one may be too much now
                        granted = words[base + A_GRANT] = min(granted, settled)
                words[base + A_TOUCHED] = stamp
                needed = amounts[unit]
                total = settled + held + needed
                if total > cap:
                    words[base + A_REFUSED] += 1
                    refused = records.balance(base)
                    break
                if is_leased and total > granted:
                    short.append((account, total))
                parts += (base, needed)
                changes.append((base, settled, held + needed, open_holds + 1))
            else:
                if len(accounts) > 1 and len({*parts[::2]}) < len(accounts):
                    raise ValueError(f"an account is named twice: {[account.key for account in accounts]}")
                if not short:
                    standings = self._buckets.look(rates, tokens, stamp, parts, changes) if rates else []
                    if isinstance(standings, list):
                        slot, generation = records.open_slot(stamp, parts, changes, tokens, tag)
                        return Hold(
                            slot=slot, generation=generation, amount=amount, tokens=tokens, standings=tuple(standings)
                        )
                    empty = standings
        if refused is not None:
            raise budget_exceeded(refused, needed, now)
        if empty is not None:
            raise rate_refused(empty, tokens)
        raise LeaseNeeded(tuple(short))

    def _find(self, account: Account) -> _Place:
        """Where the account lies, which is made when there is none; remembered for as long as it is not dropped."""
        base = self._records.account(account.unit, account.name, account.window)
        stored_cap = UNCAPPED if account.cap is None else account.cap
        place = (
            base + A_GENERATION,
            self._words[base + A_GENERATION],
            base,
            base * 8 + FIGURES_AT,
            UNIT_CODES[account.unit],
            stored_cap,
            sys.maxsize if account.cap is None else account.cap,
            account.leased and account.cap is not None,
        )
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[account] = place
        return place

    def mark_sent(self, hold: Hold) -> None:
        """Say that the call is about to leave: from here on, if this process dies, the hold is charged in full."""
        at = slot_at(hold.slot)
        if self._words[at + S_GENERATION] == hold.generation:
            self._words[at + S_SENT] = 1

    def disown(self, hold: Hold) -> None:
        """Say that the call is its client's, and about to leave: from here on the hold ends with no process. Who knows
        it settles or releases it, wherever; when it is an hour old, it is charged in full."""
        with self._file:
            self._records.disown_slot(slot_at(hold.slot), hold.generation)

    def settle(self, hold: Hold, actual: Nano, *, tokens: int | None = None) -> bool:
        """Charge what the call really cost and give the rest back. ``tokens`` None: as many as were held.

        False when the hold is no longer open (settled, released or reaped before): then nothing changes. What is
        above the hold is charged too, since it was spent, and counted in :attr:`overruns`.
        """
        if actual < 0 or (tokens is not None and tokens < 0):
            raise ValueError(f"a settlement is not negative: {actual!r}, tokens {tokens!r}")
        charge = (actual, hold.tokens if tokens is None else tokens, 1)
        with self._file:
            return self._records.end_slot(slot_at(hold.slot), hold.generation, charge)

    def release(self, hold: Hold) -> bool:
        """Give the whole hold back: the call surely cost nothing. False when the hold is no longer open."""
        with self._file:
            return self._records.end_slot(slot_at(hold.slot), hold.generation, (0, 0, 0))

    def reap(self, now: float, charged: list[Charged] | None = None) -> int:
        """End the holds whose process is dead, or that are an hour old: charged in full if sent, else given back. Those
        that were disowned end by their age alone.

        Returns how many there were; those that were charged are appended to ``charged``.
        """
        words, records = self._words, self._records
        found: list[tuple[int, int, tuple[int, int], int]] = []
        for batch in records.slot_batches():
            with self._file:
                for at in batch:
                    if words[at] == OPEN:
                        process = (words[at + S_PID], words[at + S_STARTED])
                        found.append((at, words[at + S_GENERATION], process, words[at + S_CREATED]))
        alive = {process: _lives(*process) for _, _, process, _ in found}
        oldest = (now - STALE_SECONDS) * 1e9
        ended = 0
        for at, generation, process, created in found:
            if not alive[process] or created < oldest:
                with self._file:
                    was_sent = bool(words[at + S_SENT])
                    what = self._charged(at) if was_sent and charged is not None else None
                    is_over = created < oldest or words[at + S_PID] == process[0]  # else disowned since it was found
                    if is_over and records.end_slot(at, generation, None if was_sent else (0, 0, 0)):
                        ended += 1
                        if what is not None and charged is not None:
                            charged.append(what)
        return ended

    def _charged(self, at: int) -> Charged:
        words, records = self._words, self._records
        parts = [(records.balance(base).key, held) for base, held in records.slot_parts(at)
                 if records.unit_code(base) <= CALLS]  # fmt: skip
        return Charged(
            tag=words[at + S_TAG], created_at=words[at + S_CREATED] / 1e9, tokens=words[at + S_TOKENS],
            parts=tuple(parts),
        )  # fmt: skip

    # --- counters -------------------------------------------------------------------------------------------------

    def count(self, account: Account, amount: int = 1, *, now: float) -> None:
        """Add to an account at once, without a hold; LimitExceeded, and nothing added, when its cap would be passed."""
        words = self._words
        with self._file:
            base = self._records.account(account.unit, account.name, account.window)
            words[base + A_CAP] = UNCAPPED if account.cap is None else account.cap
            words[base + A_TOUCHED] = int(now * 1e9)
            total = words[base + A_SETTLED] + amount
            if account.cap is None or total + words[base + A_HELD] <= account.cap:
                words[base + A_SETTLED] = total
                return
            words[base + A_REFUSED] += 1
            refused = self._records.balance(base)
        raise budget_exceeded(refused, amount, now)

    def began(self, key: Key, now: float) -> float:
        """When this was first asked about the account: at ``now``, if it never was."""
        words = self._words
        with self._file:
            at = self._records.account(key[2], key[0], key[1]) + A_BEGAN
            words[at] = words[at] or int(now * 1e9)
            return words[at] / 1e9

    # --- what there is --------------------------------------------------------------------------------------------

    def balances(self, prefix: str = "") -> list[Balance]:
        """Every account whose name starts with ``prefix``, by name, window and unit."""
        records = self._records
        found = []
        for batch in records.account_batches():
            with self._file:
                found += [
                    records.balance(base)
                    for base in batch
                    if self._words[base] == USED and records.unit_code(base) < RATE
                ]
        kept = [balance for balance in found if balance.account.startswith(prefix)]
        return sorted(kept, key=lambda balance: (balance.account, balance.window, balance.unit))

    def open_holds(self) -> int:
        """How many holds are not settled."""
        found = 0
        for batch in self._records.slot_batches():
            with self._file:
                found += sum(self._words[at] == OPEN for at in batch)
        return found

    @property
    def overruns(self) -> int:
        """How many settlements were above their hold since the table was made: the bound was wrong."""
        return self._words[H_OVERRUNS]

    @property
    def repairs(self) -> int:
        """How often a half-made change was repaired since the table was made."""
        return self._words[H_REPAIRS]

    # --- the ledger's side ----------------------------------------------------------------------------------------

    @property
    def restored(self) -> bool:
        """Whether the ledger's totals are in: False in a new table, and after the machine restarted."""
        return bool(self._words[H_RESTORED])

    def restore(self, balances: Sequence[Balance]) -> None:
        """Raise each account's settled total to at least what is given; then the table counts as restored."""
        words = self._words
        for balance in balances:
            with self._file:
                base = self._records.account(balance.unit, balance.account, balance.window)
                words[base + A_SETTLED] = max(words[base + A_SETTLED], balance.settled)
                words[base + A_TOUCHED] = max(words[base + A_TOUCHED], int(balance.touched_at * 1e9))
        with self._file:
            words[H_RESTORED] = 1

    def adjust(self, key: Key, change: int) -> bool:
        """Add ``change`` (which may be negative) to what is settled on an account, never going below nothing. What it
        frees of a lease is not this machine's to spend before it leases again.

        False when the table has no such account.
        """
        words = self._words
        with self._file:
            base = self._records.find_account(key[2], key[0], key[1])
            if base:
                words[base + A_SETTLED] = max(0, words[base + A_SETTLED] + change)
                if change < 0 and words[base + A_GRANT] != UNLEASED:
                    words[base + A_GRANT] = max(0, words[base + A_GRANT] + change)
            return bool(base)

    def grant(self, key: Key, granted: int) -> None:
        """Say how much of an account's cap this machine may spend, from now on."""
        words = self._words
        with self._file:
            words[self._records.account(key[2], key[0], key[1]) + A_GRANT] = granted

    def count_refusal(self, key: Key) -> None:
        """A call was turned away because too little of the account's cap is left to lease."""
        with self._file:
            self._words[self._records.account(key[2], key[0], key[1]) + A_REFUSED] += 1

    def lower_grant(self, key: Key, granted: int) -> int:
        """Give up what is leased above ``granted``, though nothing that is spent or held; returns what is left of it,
        or what is spent and held when that is more."""
        words = self._words
        with self._file:
            base = self._records.find_account(key[2], key[0], key[1])
            if not base or words[base + A_GRANT] == UNLEASED:
                return 0
            used = words[base + A_SETTLED] + words[base + A_HELD]
            words[base + A_GRANT] = min(words[base + A_GRANT], max(granted, used))
            return max(words[base + A_GRANT], used)

    def drop(self, balances: Sequence[Balance]) -> int:
        """Forget accounts, each only if it has no open hold and has not changed since the balance was read."""
        words, records = self._words, self._records
        dropped = 0
        for balance in balances:
            with self._file:
                base = records.find_account(balance.unit, balance.account, balance.window)
                if base and not words[base + A_OPEN] and records.balance(base) == balance:
                    records.free_account(base)
                    dropped += 1
        return dropped

    def drop_rates(self, now: float) -> int:
        """Forget the token buckets that are full again, and what counts calls under way when there are none."""
        words, records = self._words, self._records
        dropped = 0
        for batch in records.account_batches():
            with self._file:
                for base in batch:
                    passes = words[base] == USED and records.unit_code(base) >= CONCURRENT
                    if passes and not words[base + A_OPEN] and words[base + A_SETTLED] <= now * 1e9:
                        records.free_account(base)
                        dropped += 1
        return dropped


def _lives(pid: int, started: int) -> bool:
    """Whether what a hold ends with is still there; nobody always is."""
    return pid == NOBODY or processes.start_time(pid) == started
