"""Files that only their user may read: a database, and what SQLite puts beside it."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a database, made with the rights that the database has at the time."""


def keep_private(path: Path) -> None:
    """See to it that ``path`` is there, and that it and what is beside it are readable by their owner only.

    To be called before SQLite opens it. A folder that is missing is made, for its owner only. Raises
    :class:`OSError` where nothing can be made; what belongs to somebody else keeps its rights.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        # Closing any handle of a file ends the locks that SQLite holds on it in this process: it gets its name only
        # when nobody has it open.
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        draft.touch(0o600, exist_ok=False)
        try:
            os.link(draft, path)
        except FileExistsError:  # somebody else was first
            pass
        except OSError:  # a file system without hard links
            path.touch(0o600)
        finally:
            draft.unlink()
    for each in (path, *(path.with_name(path.name + suffix) for suffix in BESIDE)):
        with suppress(OSError):
            mode = each.stat().st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                each.chmod(stat.S_IMODE(mode) & 0o700)
