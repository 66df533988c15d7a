"""What keeps takers of a hold table apart: threads and processes alike, and given back by the kernel for one that dies.

Two kinds, and the file says which one is its own. On Linux with glibc it is a mutex in the mapped file itself, shared
between processes and *robust* (pthread_mutexattr_setrobust(3)): to take it and give it back costs 0.3 µs and no system
call, against 1.6 µs for the other kind, which is ``flock`` with a lock for the threads, and is to be had everywhere.

Neither is waited for in C: a taker that waits lets other threads run and tries again, so that nobody who has the lock
waits for his turn among the threads.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

FLOCK, MUTEX = 1, 2
"""The kinds, as a table's header has them."""

MUTEX_BYTES = 64  # glibc's has 40 on x86-64 and 48 on ARM

DIED = errno.EOWNERDEAD if hasattr(errno, "EOWNERDEAD") else -1
"""What ``take`` gives who has got the lock, after its last taker died with it."""

_SHARED = _ROBUST = 1  # PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST

# A call through ``PyDLL`` keeps other threads from running meanwhile: what does not wait need not let go, and would
# have to wait for its turn afterwards, which takes many times as long as the lock itself.
_c = ctypes.PyDLL(None)


class Lock(Protocol):
    """``take`` tries once: 0 or :data:`DIED` when the lock was got. The kernel gives back what a process had."""

    take: Callable[[], int]
    give: Callable[[], object]

    def keep(self) -> None:
        """Who was told :data:`DIED` says that the lock can be used on."""
        ...


class FileLock:
    """``flock``, on an open file of each process's own: a lock taken through an inherited one would outlive its taker,
    so forked children open the file again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.Lock()
        self.fd = self._open()
        self.take: Callable[[], int] = self._take
        self.give: Callable[[], object] = self._give

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def keep(self) -> None:
        pass

    def after_fork(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = self._open()
            self._threads = threading.Lock()

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _take(self) -> int:
        if not self._threads.acquire(False):
            return errno.EBUSY
        if _c.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0:
            return 0
        self._threads.release()
        return errno.EBUSY

    def _give(self) -> None:
        _c.flock(self.fd, fcntl.LOCK_UN)
        self._threads.release()


class Mutex:
    """The mutex at an address, which must stay mapped for as long as anybody may take it. Its taker is a thread, so a
    forked child has taken nothing."""

    def __init__(self, address: int) -> None:
        self._at = ctypes.c_void_p(address)
        self.take: Callable[[], int] = partial(_c.pthread_mutex_trylock, self._at)
        self.give: Callable[[], object] = partial(_c.pthread_mutex_unlock, self._at)

    def make(self) -> bool:
        """Make a new one of the bytes there; False when the system has none that is shared and robust."""
        kind = ctypes.create_string_buffer(MUTEX_BYTES)
        return not (
            _c.pthread_mutexattr_init(kind)
            or _c.pthread_mutexattr_setpshared(kind, _SHARED)
            or _c.pthread_mutexattr_setrobust(kind, _ROBUST)
            or _c.pthread_mutex_init(self._at, kind)
        )

    def keep(self) -> None:
        _c.pthread_mutex_consistent(self._at)


def knows_mutex() -> bool:
    """Whether this process can use the mutex that others of its machine make: what its bytes mean is glibc's own."""
    return sys.platform == "linux" and sys.maxsize > 1 << 32 and hasattr(_c, "gnu_get_libc_version")
