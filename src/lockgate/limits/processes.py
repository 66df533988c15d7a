"""Which processes live: a process id together with its start time, since ids are used again."""

from __future__ import annotations

import os
from pathlib import Path

_LINUX = os.path.isdir("/proc/self")


def start_time(pid: int) -> int | None:
    """When the process started (Linux: clock ticks since boot; elsewhere 0), or None when it is gone.

    A zombie is gone: it will not call again.
    """
    if _LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0


def boot_id() -> bytes:
    """16 bytes that change when the machine restarts (all zero where the system does not tell)."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return bytes(16)
    return bytes.fromhex(text.strip().replace("-", ""))
