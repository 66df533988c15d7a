"""``${file:path}``: a file, relative to the project; its last line end is dropped."""

from __future__ import annotations

from pathlib import Path

from lockgate.errors import Unavailable


def read(name: str, root: Path) -> str:
    try:
        value = (root / name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise Unavailable(
            f"the secret file {name!r} cannot be read: {reason}", remedy="create it, readable by this user alone"
        ) from None
    if not value:
        raise Unavailable(f"the secret file {name!r} is empty", remedy="put the secret into it")
    return value
