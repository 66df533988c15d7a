"""What every child process of Lockgate does: end when its parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL = 1.0  # seconds; a second net under the kernel's signal, and the only one outside Linux


def die_with_parent(signum: int = signal.SIGTERM, *, parent: int | None = None) -> None:
    """Send this process ``signum`` when the parent dies, even by ``kill -9``. Call it first thing in the child.

    ``parent`` is the parent's process id where the child was told it; else the parent of now is meant.
    """
    expected = parent or os.getppid()
    if sys.platform == "linux":
        # The kernel signals when the *thread* that forked ends: parents must start children from a lasting thread.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    threading.Thread(target=_watch, args=(expected, signum), name="lockgate-parent-watch", daemon=True).start()


def alive(pid: int) -> bool:
    """Whether a process of this id exists on this machine (it may be another one by now: ids are reused)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _watch(expected: int, signum: int) -> None:
    while os.getppid() == expected:
        time.sleep(_POLL)
    os.kill(os.getpid(), signum)
