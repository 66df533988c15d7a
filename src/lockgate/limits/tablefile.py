"""The file behind the hold table: mapped into every process, changed only under one lock.

The lock is ``flock`` on an open file of each process's own, so the kernel gives it back when the process dies. Forked
children open the file again, since a lock taken through an inherited handle would outlive its taker. Whoever gets the
lock and finds the ``DIRTY`` word set repairs the table first: its last holder died, or was interrupted, half-way.

Layout, in 64-bit words: one header page, then hash buckets, then accounts, then hold slots. The file is sparse; disk
is reserved as records come into use, so that a full disk is an error and not a ``SIGBUS``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from lockgate.errors import Corrupt, Unavailable
from lockgate.limits import processes

LOCK_SECONDS = 5.0

MAGIC = int.from_bytes(b"lockhold", "little")
FORMAT = 2

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
) = range(14)

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

# ``fcntl.flock`` lets other threads run meanwhile, and then waits for its turn again, which takes many times as long as
# the lock itself when there is another thread that wants to. What does not wait for the lock need not let go.
_lock_at_once = ctypes.PyDLL(None).flock


class TableFile:
    """An open table. ``words`` are its 64-bit words, ``raw`` its bytes; use both only inside ``with file:``.

    ``repair`` is called under the lock with True after a restart of the machine, and with False when the table was
    left half-changed. Raises :class:`Unavailable` when the lock cannot be had in ``LOCK_SECONDS``.
    """

    def __init__(self, path: Path, repair: Callable[[TableFile, bool], None]) -> None:
        self.path = path
        self._repair = repair
        self._mutex = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()
        self.pid = os.getpid()
        self.started = processes.start_time(self.pid) or 0
        self._flock()
        try:
            size = os.fstat(self._fd).st_size
            if size not in (0, FILE_BYTES):
                raise self._foreign()
            if size == 0:
                os.ftruncate(self._fd, FILE_BYTES)
            self.reserve(0, ACCOUNTS_AT * 8)
            self._map = self._mapped()
            self.raw = memoryview(self._map)
            self.words = self.raw.cast("q")
            self._greet()
        except BaseException:
            os.close(self._fd)
            raise
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        reference = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: _call(reference))

    def __enter__(self) -> None:
        if not (self._mutex.acquire(False) or self._mutex.acquire(timeout=LOCK_SECONDS)):
            raise self._busy()
        try:
            self._flock()
        except BaseException:
            self._mutex.release()
            raise
        if self.words[H_DIRTY]:
            try:
                self._mend(False)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        _lock_at_once(self._fd, fcntl.LOCK_UN)
        self._mutex.release()

    def reserve_record(self, first_word: int, index: int, words: int) -> None:
        """Reserve disk for the record of so many words, before its first use; Unavailable when the disk is full."""
        if index % _CHUNK == 0:
            self.reserve((first_word + index * words) * 8, _CHUNK * words * 8)

    def reserve(self, offset: int, length: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._fd, offset, length)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return  # the file system cannot reserve; it will do without
            raise Unavailable(
                f"the hold table {str(self.path)!r} cannot grow: {error.strerror}", remedy="make room on its disk"
            ) from error

    def close(self) -> None:
        self.words.release()
        self.raw.release()
        self._map.close()
        os.close(self._fd)
        self._fd = -1

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _mapped(self) -> mmap.mmap:
        """The file in memory, through a handle of its own: a mapping keeps a copy of its handle, and forked children
        keep that, so it must not be the one the lock is taken through."""
        handle = self._open()
        try:
            return mmap.mmap(handle, FILE_BYTES)
        finally:
            os.close(handle)

    def _flock(self) -> None:
        if _lock_at_once(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0:
            return
        deadline = time.monotonic() + LOCK_SECONDS
        pause = 0.0
        while True:
            time.sleep(pause)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._busy() from None
                pause = min(0.001, pause + 0.00001)
            else:
                return

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
        if words[H_MAGIC] == 0:
            words[H_FORMAT] = FORMAT
            words[H_BOOT_LOW], words[H_BOOT_HIGH] = low, high
            words[H_GENERATION] = time.time_ns()  # no hold of a table that was here before can be taken for ours
            words[H_MAGIC] = MAGIC
        if words[H_MAGIC] != MAGIC or words[H_FORMAT] != FORMAT:
            raise self._foreign()
        if (words[H_BOOT_LOW], words[H_BOOT_HIGH]) != (low, high):
            words[H_RESTORED] = 0
            self._mend(True)
            words[H_BOOT_LOW], words[H_BOOT_HIGH] = low, high
        elif words[H_DIRTY]:
            self._mend(False)

    def _mend(self, restarted: bool) -> None:
        self.words[H_DIRTY] = self.pid
        self._repair(self, restarted)
        self.words[H_REPAIRS] += 1
        self.words[H_DIRTY] = 0

    def _after_fork(self) -> None:
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = self._open()
        self._mutex = threading.Lock()
        self.pid = os.getpid()
        self.started = processes.start_time(self.pid) or 0


def _call(reference: weakref.WeakMethod[Callable[[], None]]) -> None:
    method = reference()
    if method is not None:
        method()
