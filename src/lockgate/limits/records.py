"""Accounts and hold slots as they lie in the hold table's file. Every method is called under the file's lock.

How a change survives ``kill -9`` at any instruction: the process id is put in the ``DIRTY`` word first and taken out
last. Truth is each slot's state and each account's settled total; what is held, the free lists and the hash chains
can be computed from them, and are when a table is found dirty. Opening a slot is one 8-byte store. Settling writes
the accounts' *new totals* into the slot, then one 8-byte store says ``SETTLING``, then the totals are copied: a
repair copies them again, which changes nothing if it was done before.

Several words are read at once by a ``struct``, which costs little more than reading one. Written at once are only those
that a repair computes anew, and those of a slot that is not open yet: ``pack_into`` fills its place with zeros first.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from lockgate.errors import InputError, Unavailable
from lockgate.limits.model import Balance, Unit
from lockgate.limits.tablefile import (
    ACCOUNTS,
    ACCOUNTS_AT,
    BUCKETS,
    BUCKETS_AT,
    H_ACCOUNT_FREE,
    H_ACCOUNT_HIGH,
    H_DIRTY,
    H_GENERATION,
    H_NAMED,
    H_OVERRUNS,
    H_SLOT_FREE,
    H_SLOT_HIGH,
    RECORD_BYTES,
    RECORD_WORDS,
    SLOT_WORDS,
    SLOTS,
    SLOTS_AT,
    TableFile,
)

MAX_ACCOUNTS = 36
"""Accounts and rates one hold may name."""

MOST_NAMED = ACCOUNTS * 3 // 4
"""Accounts that callers named (sessions, tasks, labels, runs by a header): who makes up name after name fills these,
and leaves room for the accounts of tenants, keys, agents and models."""

FREE, USED, OPEN, SETTLING = 0, 1, 2, 3
UNCAPPED = -1
UNLEASED = -1
NOBODY = 0
"""In place of the process of a slot: the hold ends with none."""

USD, TOKENS, CALLS, CONCURRENT, RATE, TOKEN_RATE = range(6)
UNIT_CODES = {
    "usd": USD, "tokens": TOKENS, "calls": CALLS, "concurrent": CONCURRENT, "rate": RATE, "token_rate": TOKEN_RATE,
}  # fmt: skip
_UNITS = tuple(UNIT_CODES)

# words of an account; its key (unit code, name, NUL, window) stands in the bytes after them
(
    A_STATE, A_GENERATION, A_NEXT, A_HASH, A_CAP, A_SETTLED, A_HELD, A_OPEN, A_REFUSED, A_TOUCHED, A_KEY_LENGTH,
    A_GRANT,  # how much of the cap this machine has leased
    A_BEGAN,  # when somebody first asked since when there is this account
) = range(13)  # fmt: skip
# a bucket settles nothing: A_SETTLED is the time at which it will be full again, and the words of money count members
A_EPOCH, A_MEMBERS, A_MEMBERS_BEFORE = A_CAP, A_REFUSED, A_GRANT
A_KEY = 13 * 8  # in bytes
KEY_BYTES = RECORD_BYTES - A_KEY

FIGURES_AT = A_CAP * 8  # in bytes
figures = struct.Struct("<5q16xq").unpack_from
"""An account's cap, settled, held, open, refused and granted; of ``raw``, :data:`FIGURES_AT` after its base."""
_settling = struct.Struct("<3q40xB").unpack_from  # settled, held, open, and the unit's code
_write_held = struct.Struct("<2q").pack_into  # held, open
_SETTLED_AT, _HELD_AT = A_SETTLED * 8, A_HELD * 8

Change = tuple[int, int, int, int]
"""What an account comes to: its base, settled, held, open."""

# words of a slot; then (account, amount, settled total to reach) for each account
S_STATE, S_GENERATION, S_NEXT, S_PID, S_STARTED, S_SENT, S_CREATED, S_TOKENS, S_TAG, S_COUNT, S_PARTS = range(11)
_write_slot = [struct.Struct(f"<{S_PARTS - 1}q" + "2q8x" * count).pack_into for count in range(MAX_ACCOUNTS + 1)]
_parts = [struct.Struct("<" + "2q8x" * count).unpack_from for count in range(MAX_ACCOUNTS + 1)]

_BATCH = 256  # records looked at before the lock is given to others


class Records:
    """The records of one table. An account is named by ``base``, a slot by ``at``: the word where it starts."""

    def __init__(self, path: Path) -> None:
        self._take(TableFile(path, self._repair))

    # --- accounts -------------------------------------------------------------------------------------------------

    def account(self, unit: str, name: str, window: str) -> int:
        """The account's base; it is made when there is none."""
        key = _key(unit, name, window)
        return self._find(key) or self._make_account(key)

    def find_account(self, unit: str, name: str, window: str) -> int:
        """The account's base, or 0."""
        return self._find(_key(unit, name, window))

    def free_account(self, base: int) -> None:
        words = self.words
        words[H_DIRTY] = self.file.pid
        before = BUCKETS_AT + words[base + A_HASH] % BUCKETS
        while words[before] != base:
            before = words[before] + A_NEXT
        words[before] = words[base + A_NEXT]
        words[base + A_GENERATION] += 1  # the places processes remember are no longer its
        words[base] = FREE
        if words[H_NAMED] and _is_named(self._key_of(base)):
            words[H_NAMED] -= 1
        words[base + A_NEXT] = words[H_ACCOUNT_FREE]
        words[H_ACCOUNT_FREE] = base
        words[H_DIRTY] = 0

    def unit_code(self, base: int) -> int:
        return self.raw[base * 8 + A_KEY]

    def balance(self, base: int) -> Balance:
        words = self.words
        name, window = self._key_of(base)[1:].decode().split("\0")
        cap = words[base + A_CAP]
        return Balance(
            account=name,
            window=window,
            cap=None if cap == UNCAPPED else cap,
            settled=words[base + A_SETTLED],
            held=words[base + A_HELD],
            unit=cast(Unit, _UNITS[self.unit_code(base)]),
            refused=words[base + A_REFUSED],
            touched_at=words[base + A_TOUCHED] / 1e9,
            granted=None if words[base + A_GRANT] == UNLEASED else words[base + A_GRANT],
        )

    def account_batches(self) -> Iterator[Sequence[int]]:
        """The places of accounts, in pieces: lock the file for each piece, and look at ``words[base] == USED``."""
        return self._batches(ACCOUNTS_AT, H_ACCOUNT_HIGH, RECORD_WORDS)

    # --- slots ----------------------------------------------------------------------------------------------------

    def open_slot(
        self, stamp: int, parts: Sequence[int], changes: Sequence[Change], tokens: int, tag: int
    ) -> tuple[int, int]:
        """Hold these parts, (account, amount) after one another, whereby accounts change as given; gives the slot's
        number and generation.

        ``tokens`` are those held, ``tag`` is a number of the caller's to know the hold by.
        """
        words, file = self.words, self.file
        free = words[H_SLOT_FREE]
        at = free if free else SLOTS_AT + words[H_SLOT_HIGH] * SLOT_WORDS
        if not free:
            if words[H_SLOT_HIGH] == SLOTS:
                raise Unavailable(f"{SLOTS} model calls are under way: the hold table is full", remedy="try again soon")
            file.reserve_record(SLOTS_AT, words[H_SLOT_HIGH], SLOT_WORDS)
        words[H_DIRTY] = file.pid
        if free:
            words[H_SLOT_FREE] = words[at + S_NEXT]
        else:
            words[H_SLOT_HIGH] += 1
        words[H_GENERATION] = generation = words[H_GENERATION] + 1
        self._change(changes)
        count = len(parts) // 2
        _write_slot[count](
            self.raw, (at + 1) * 8, generation, 0, file.pid, file.started, 0, stamp, tokens, tag, count, *parts
        )
        words[at] = OPEN
        words[H_DIRTY] = 0
        return (at - SLOTS_AT) // SLOT_WORDS, generation

    def end_slot(self, at: int, generation: int, charge: tuple[int, int, int] | None) -> bool:
        """End a hold: charge (nano-USD, tokens, calls), or None for all that is held. False when it is not open."""
        words = self.words
        if words[at] != OPEN or words[at + S_GENERATION] != generation:
            return False
        words[H_DIRTY] = self.file.pid
        self._change(self._settle(at, charge))
        words[at] = FREE
        words[at + S_NEXT] = words[H_SLOT_FREE]
        words[H_SLOT_FREE] = at
        words[H_DIRTY] = 0
        return True

    def disown_slot(self, at: int, generation: int) -> None:
        """Let a hold outlive the process that made it, as one that was sent. Nothing happens when it is not open."""
        words = self.words
        if words[at] == OPEN and words[at + S_GENERATION] == generation:
            words[at + S_SENT] = 1  # first: cut off between the two, it is charged with its process
            words[at + S_PID] = NOBODY

    def slot_batches(self) -> Iterator[Sequence[int]]:
        """The places of slots, in pieces: lock the file for each piece, and look at ``words[at] == OPEN``."""
        return self._batches(SLOTS_AT, H_SLOT_HIGH, SLOT_WORDS)

    def slot_parts(self, at: int) -> list[tuple[int, int]]:
        """(account's base, amount held) of a slot."""
        parts = self._parts_of(at)
        return list(zip(parts[::2], parts[1::2], strict=True))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _take(self, file: TableFile) -> None:
        self.file = file
        self.words = file.words
        self.raw = file.raw

    def _parts_of(self, at: int) -> tuple[int, ...]:
        """(account, amount) after one another."""
        return _parts[self.words[at + S_COUNT]](self.raw, (at + S_PARTS) * 8)

    def _settle(self, at: int, charge: tuple[int, int, int] | None) -> list[Change]:
        """Decide the totals that the accounts shall reach, and commit to them."""
        words, raw = self.words, self.raw
        changes = []
        parts = self._parts_of(at)
        total_at = at + S_PARTS + 2
        for index in range(0, len(parts), 2):
            base, amount = parts[index], parts[index + 1]
            settled, held, open_holds, unit = _settling(raw, base * 8 + _SETTLED_AT)
            if unit >= CONCURRENT:
                if charge is not None and unit != CONCURRENT and (unit == TOKEN_RATE or not charge[CALLS]):
                    settled -= self._given_back(at, amount, charge)
            else:
                actual = amount if charge is None else charge[unit]
                if actual > amount:
                    words[H_OVERRUNS] += 1
                settled += actual
            words[total_at] = settled
            total_at += 3
            changes.append((base, settled, held - amount, open_holds - 1))
        words[at] = SETTLING
        return changes

    def _given_back(self, at: int, held: int, charge: tuple[int, int, int]) -> int:
        """What of a bucket's time a hold that ends gives back: all if nothing was sent, else for unused tokens."""
        if not charge[CALLS]:
            return held
        tokens = self.words[at + S_TOKENS]
        return held - held * charge[TOKENS] // tokens if tokens else 0

    def _change(self, changes: Sequence[Change]) -> None:
        words, raw = self.words, self.raw
        for base, settled, held, open_holds in changes:
            words[base + A_SETTLED] = settled
            _write_held(raw, base * 8 + _HELD_AT, held, open_holds)

    def _find(self, key: bytes) -> int:
        words = self.words
        code = _hash(key)
        base = words[BUCKETS_AT + code % BUCKETS]
        while base:
            if words[base + A_HASH] == code and self._key_of(base) == key:
                return base
            base = words[base + A_NEXT]
        return 0

    def _make_account(self, key: bytes) -> int:
        words, is_named = self.words, _is_named(key)
        if is_named and words[H_NAMED] >= MOST_NAMED:
            raise Unavailable(
                f"{MOST_NAMED} sessions, tasks, labels and named runs are in use: there is no room for another name",
                remedy="use the names there are, or ask again when idle ones are given up, within half an hour",
            )
        free = words[H_ACCOUNT_FREE]
        base = free if free else ACCOUNTS_AT + words[H_ACCOUNT_HIGH] * RECORD_WORDS
        if not free:
            if words[H_ACCOUNT_HIGH] == ACCOUNTS:
                raise Unavailable(
                    f"{ACCOUNTS} accounts are in use: the hold table is full",
                    remedy="start the control plane: it moves finished accounts to the ledger",
                )
            self.file.reserve_record(ACCOUNTS_AT, words[H_ACCOUNT_HIGH], RECORD_WORDS)
        words[H_DIRTY] = self.file.pid
        if free:
            words[H_ACCOUNT_FREE] = words[base + A_NEXT]
        else:
            words[H_ACCOUNT_HIGH] += 1
        words[base + A_GENERATION] += 1
        words[base + A_CAP] = UNCAPPED
        words[base + A_GRANT] = UNLEASED
        for field in (A_SETTLED, A_HELD, A_OPEN, A_REFUSED, A_TOUCHED, A_BEGAN):
            words[base + field] = 0
        words[base + A_HASH] = _hash(key)
        words[base + A_KEY_LENGTH] = len(key)
        self.raw[base * 8 + A_KEY : base * 8 + A_KEY + len(key)] = key
        words[base] = USED
        words[H_NAMED] += is_named
        self._link(base)
        words[H_DIRTY] = 0
        return base

    def _link(self, base: int) -> None:
        bucket = BUCKETS_AT + self.words[base + A_HASH] % BUCKETS
        self.words[base + A_NEXT] = self.words[bucket]
        self.words[bucket] = base

    def _key_of(self, base: int) -> bytes:
        start = base * 8 + A_KEY
        return bytes(self.raw[start : start + self.words[base + A_KEY_LENGTH]])

    def _batches(self, first: int, high: int, size: int) -> Iterator[Sequence[int]]:
        index = 0
        while index < self.words[high]:
            stop = min(index + _BATCH, self.words[high])
            yield range(first + index * size, first + stop * size, size)
            index = stop

    # --- repair ---------------------------------------------------------------------------------------------------

    def _repair(self, file: TableFile, restarted: bool) -> None:
        """Compute everything that follows from the accounts' totals and the slots' states.

        Doing it twice, or half and then again, gives the same. ``restarted``: the machine was, so no process that
        held anything lives, and pages may be missing; records that contradict themselves are dropped. Holds that were
        nobody's process's stay open.
        """
        self._take(file)
        words = self.words
        self.raw[BUCKETS_AT * 8 : ACCOUNTS_AT * 8] = bytes(BUCKETS * 8)
        words[H_ACCOUNT_FREE] = words[H_SLOT_FREE] = words[H_NAMED] = 0
        accounts = set()
        for index in range(words[H_ACCOUNT_HIGH]):
            base = ACCOUNTS_AT + index * RECORD_WORDS
            words[base + A_HELD] = words[base + A_OPEN] = 0
            if restarted:
                words[base + A_GRANT] = UNLEASED  # what the store says is leased to this machine is read again
            if words[base] == USED and self._is_sound(base):
                accounts.add(base)
                words[H_NAMED] += _is_named(self._key_of(base))
                self._link(base)
            else:
                words[base] = FREE
                words[base + A_GENERATION] += 1
                words[base + A_NEXT] = words[H_ACCOUNT_FREE]
                words[H_ACCOUNT_FREE] = base
        slots = [SLOTS_AT + index * SLOT_WORDS for index in range(words[H_SLOT_HIGH])]
        for at in slots:
            if words[at] == SETTLING:
                self._replay(at, accounts)
        for at in slots:
            if words[at] == OPEN and restarted:
                if self._parts_are(at, accounts):
                    if words[at + S_PID] == NOBODY:
                        continue
                    self._settle(at, None if words[at + S_SENT] else (0, 0, 0))
                self._replay(at, accounts)
        for at in slots:
            if words[at] == OPEN:
                for part in range(at + S_PARTS, at + S_PARTS + 3 * words[at + S_COUNT], 3):
                    words[words[part] + A_HELD] += words[part + 1]
                    words[words[part] + A_OPEN] += 1
            else:
                words[at] = FREE
                words[at + S_NEXT] = words[H_SLOT_FREE]
                words[H_SLOT_FREE] = at

    def _replay(self, at: int, accounts: set[int]) -> None:
        words = self.words
        if self._parts_are(at, accounts):
            for part in range(at + S_PARTS, at + S_PARTS + 3 * words[at + S_COUNT], 3):
                base = words[part]
                words[base + A_SETTLED] = max(words[base + A_SETTLED], words[part + 2])
        words[at] = FREE

    def _parts_are(self, at: int, accounts: set[int]) -> bool:
        count = self.words[at + S_COUNT]
        parts = range(at + S_PARTS, at + S_PARTS + 3 * count, 3)
        return 0 <= count <= MAX_ACCOUNTS and all(self.words[part] in accounts for part in parts)

    def _is_sound(self, base: int) -> bool:
        key = self._key_of(base) if 0 < self.words[base + A_KEY_LENGTH] <= KEY_BYTES else b"\xff"
        return key[0] <= TOKEN_RATE and key.count(0, 1) == 1 and _hash(key) == self.words[base + A_HASH]


def slot_at(slot: int) -> int:
    """Where the slot of this number starts."""
    return SLOTS_AT + slot * SLOT_WORDS


def _is_named(key: bytes) -> bool:
    """Whether it is the account of something that callers name."""
    return key.startswith((b"session:", b"task:", b"label:"), 1) or (key.startswith(b"run:", 1) and b"/" in key)


def _key(unit: str, name: str, window: str) -> bytes:
    key = b"%c%s\0%s" % (UNIT_CODES[unit], name.encode(), window.encode())
    if len(key) > KEY_BYTES or "\0" in name or "\0" in window:
        raise InputError(
            f"the account name {name!r} is too long or holds a zero byte",
            remedy=f"keep names of tenants and agents under {KEY_BYTES - 64} bytes",
        )
    return key


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little", signed=True)
