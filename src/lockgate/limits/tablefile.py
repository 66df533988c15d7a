"""The file behind the hold table: mapped into every process, changed only under one lock (``tablelock.py``).

The kernel gives the lock back when its taker dies. Whoever gets it and finds the ``DIRTY`` word set repairs the table
first: its last taker died, or was interrupted, half-way.

Layout, in 64-bit words: one header page, then hash buckets, then accounts, then hold slots. The file is sparse; disk
is reserved as records come into use, so that a full disk is an error and not a ``SIGBUS``.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from lockgate.errors import Corrupt, Unavailable
from lockgate.limits import processes
from lockgate.limits.tablelock import DIED, FLOCK, MUTEX, FileLock, Lock, Mutex, knows_mutex

LOCK_SECONDS = 5.0

MAGIC = int.from_bytes(b"lockhold", "little")
FORMAT = 3

# header words
(
    H_MAGIC,
    H_FORMAT,
    H_BOOT_LOW,
    H_BOOT_HIGH,
    H_DIRTY,  # the process that is changing the table, 0: nobody
    H_GENERATION,
    H_ACCOUNT_HIGH,  # records ever used
    H_ACCOUNT_FREE,  # head of the free list: index + 1, 0: none
    H_SLOT_HIGH,
    H_SLOT_FREE,
    H_OVERRUNS,  # settlements above what was held
    H_REPAIRS,
    H_RESTORED,  # 1 once the ledger's totals are in
    H_NAMED,  # accounts in use that callers named
    H_LOCK,  # the kind of lock
) = range(15)
_MUTEX_AT = 64 * 8  # in bytes; nothing else is near

HEADER_WORDS = 512
BUCKETS = 1 << 16
ACCOUNTS = 1 << 18
SLOTS = 1 << 16
RECORD_WORDS = 64  # of an account: 512 bytes
RECORD_BYTES = RECORD_WORDS * 8
SLOT_WORDS = 128  # of a slot

BUCKETS_AT = HEADER_WORDS
ACCOUNTS_AT = BUCKETS_AT + BUCKETS
SLOTS_AT = ACCOUNTS_AT + ACCOUNTS * RECORD_WORDS
FILE_BYTES = (SLOTS_AT + SLOTS * SLOT_WORDS) * 8

_CHUNK = 256  # records whose disk is reserved at a time


class TableFile:
    """An open table. ``words`` are its 64-bit words, ``raw`` its bytes; use both only inside ``with file:``.

    ``repair`` is called under the lock with True after a restart of the machine, and with False when the table was
    left half-changed. Raises :class:`Unavailable` when the lock cannot be had in ``LOCK_SECONDS``.
    """

    def __init__(self, path: Path, repair: Callable[[TableFile, bool], None]) -> None:
        self.path = path
        self._repair = repair
        path.parent.mkdir(parents=True, exist_ok=True)
        self._door = FileLock(path)
        self.pid = os.getpid()
        self.started = processes.start_time(self.pid) or 0
        self._lock: Lock = self._door  # the file lock's is where one who opens the table takes his turn
        self._take = self._lock.take
        try:
            self._wait(self._take())
            size = os.fstat(self._door.fd).st_size
            if size not in (0, FILE_BYTES):
                raise self._foreign()
            if size == 0:
                os.ftruncate(self._door.fd, FILE_BYTES)
            self.reserve(0, ACCOUNTS_AT * 8)
            self._map = self._mapped()
            self.raw = memoryview(self._map)
            self.words = self.raw.cast("q")
            self._greet()
        except BaseException:
            self._door.close()
            raise
        self._door.give()
        if self.words[H_LOCK] == MUTEX:
            self._lock = self._mutex()
        self._take, self._give = self._lock.take, self._lock.give
        reference = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: _call(reference))

    def __enter__(self) -> None:
        refused = self._take()
        if refused:
            self._wait(refused)
        try:
            if self.words[H_DIRTY]:
                self._mend(False)
        except BaseException:
            self._give()
            raise

    def __exit__(self, kind: object, error: object, at: object) -> None:
        self._give()

    def reserve_record(self, first_word: int, index: int, words: int) -> None:
        """Reserve disk for the record of so many words, before its first use; Unavailable when the disk is full."""
        if index % _CHUNK == 0:
            self.reserve((first_word + index * words) * 8, _CHUNK * words * 8)

    def reserve(self, offset: int, length: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._door.fd, offset, length)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return  # the file system cannot reserve; it will do without
            raise Unavailable(
                f"the hold table {str(self.path)!r} cannot grow: {error.strerror}", remedy="make room on its disk"
            ) from error

    def close(self) -> None:
        """The mapping itself goes with the last reference to this: another thread may have the lock that lies in it."""
        self._take = _closed
        self.words.release()
        self.raw.release()
        self._door.close()

    def _mapped(self) -> mmap.mmap:
        """The file in memory, through a handle of its own: a mapping keeps a copy of its handle, and forked children
        keep that, so it must not be the one the lock is taken through."""
        handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(handle, FILE_BYTES)
        finally:
            os.close(handle)

    def _mutex(self) -> Mutex:
        return Mutex(ctypes.addressof(ctypes.c_char.from_buffer(self._map, _MUTEX_AT)))

    def _wait(self, refused: int) -> None:
        """Try until the lock is got that was ``refused``."""
        deadline = time.monotonic() + LOCK_SECONDS
        pause = 0.0
        while refused:
            if refused == DIED:
                self._lock.keep()
                return
            if time.monotonic() > deadline:
                raise self._busy()
            time.sleep(pause)
            pause = min(0.001, pause + 0.00001)
            refused = self._take()

    def _busy(self) -> Unavailable:
        return Unavailable(
            f"the hold table {str(self.path)!r} stayed locked for {LOCK_SECONDS:g} seconds",
            remedy="look for a stopped lockgate process and end it; its lock goes with it",
        )

    def _foreign(self) -> Corrupt:
        return Corrupt(
            f"{str(self.path)!r} is no hold table of format {FORMAT}",
            remedy="stop lockgate and delete the file: what is spent is restored from the ledger",
        )

    def _greet(self) -> None:
        """Make an empty file a table, or see that it is one, and that it was left in order."""
        words = self.words
        boot = processes.boot_id()
        low, high = int.from_bytes(boot[:8], "little", signed=True), int.from_bytes(boot[8:], "little", signed=True)
        is_new = words[H_MAGIC] == 0
        if is_new:
            words[H_FORMAT] = FORMAT
            words[H_GENERATION] = time.time_ns()  # no hold of a table that was here before can be taken for ours
        elif words[H_MAGIC] != MAGIC or words[H_FORMAT] != FORMAT:
            raise self._foreign()
        if is_new or (words[H_BOOT_LOW], words[H_BOOT_HIGH]) != (low, high):
            # nobody else has it open: who had is gone, and the lock may be as they left it when the machine stopped
            words[H_LOCK] = MUTEX if any(boot) and knows_mutex() and self._mutex().make() else FLOCK
            if not is_new:
                words[H_RESTORED] = 0
                self._mend(True)
            words[H_BOOT_LOW], words[H_BOOT_HIGH] = low, high
            words[H_MAGIC] = MAGIC
        elif words[H_LOCK] == MUTEX and not knows_mutex():
            raise Unavailable(
                f"the hold table {str(self.path)!r} is locked by processes with another C library",
                remedy="run all of lockgate on this machine with the same Python",
            )

    def _mend(self, restarted: bool) -> None:
        self.words[H_DIRTY] = self.pid
        self._repair(self, restarted)
        self.words[H_REPAIRS] += 1
        self.words[H_DIRTY] = 0

    def _after_fork(self) -> None:
        self._door.after_fork()
        self.pid = os.getpid()
        self.started = processes.start_time(self.pid) or 0


def _closed() -> int:
    raise ValueError("the hold table is closed")


def _call(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    method = reference()
    if method is not None:
        method()
