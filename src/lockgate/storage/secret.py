"""This machine's own secret: signs run tokens and gate attestations. A file only its user can read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from lockgate.errors import Corrupt

SIZE = 32


def machine_secret(home: Path) -> bytes:
    """The secret in ``<home>/secret``, made on first use. Processes that race to make it agree on one."""
    path = home / "secret"
    found = _made_once(path, lambda: secrets.token_bytes(SIZE))
    if len(found) != SIZE:
        raise Corrupt(
            f"the machine's secret {str(path)!r} has {len(found)} bytes, not {SIZE}",
            remedy="restore it; or remove it, and sign attestations anew",
        )
    return found


def machine_name(home: Path) -> str:
    """What this machine is called where several share a database: made on first use, and kept in ``<home>/machine``."""
    return _made_once(home / "machine", lambda: f"m_{secrets.token_hex(8)}".encode()).decode()


def _made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, make())
        os.fsync(descriptor)
        os.link(draft, path)  # whole or not at all, and never over another's
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        draft.unlink()
    return path.read_bytes()
