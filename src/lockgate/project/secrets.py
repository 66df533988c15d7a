"""Secrets are references, resolved where they are used and never stored, logged or traced.

``${env:NAME}`` reads an environment variable, ``${file:path}`` a file (relative to the project; its last line
end is dropped). Anything else is refused: a key written into a file would go into git.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lockgate.errors import InputError, Unavailable

REFERENCE = re.compile(r"\$\{(?P<kind>[a-z]+):(?P<name>[^}]+)\}")
_EXAMPLE = "write a reference: ${env:NAME} or ${file:path}"


def check_reference(reference: str) -> None:
    """Raise :class:`InputError` when this is not a reference Lockgate can resolve. The value is not shown."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError("a secret stands here in plain text (not shown)", remedy=_EXAMPLE)
    if match["kind"] not in ("env", "file"):
        raise InputError(f"no secret store {match['kind']!r} in {reference!r}", remedy=_EXAMPLE)


def resolve_secret(reference: str | None, root: Path) -> str | None:
    """The secret's value, or None for no reference. ``root`` is the project's folder."""
    if reference is None:
        return None
    check_reference(reference)
    match = REFERENCE.fullmatch(reference)
    assert match is not None
    kind, name = match["kind"], match["name"].strip()
    if kind == "env":
        value = os.environ.get(name)
        if not value:
            raise Unavailable(f"the environment variable {name!r} is not set", remedy=f"export {name}=…")
        return value
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
