"""Writes what a command was asked to leave in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lockgate.errors import InputError


def write(path: Path, text: str | bytes) -> None:
    """The file anew, and the folders to it. Raises :class:`InputError` where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    except OSError as failure:
        raise InputError(f"cannot be written: {failure.strerror}", path=path, remedy="give a path that can") from None


def write_lines(path: Path, values: Sequence[Any]) -> None:
    """JSONL, a value a line; see :func:`write`."""
    import msgspec

    write(path, b"".join(msgspec.json.encode(value) + b"\n" for value in values))
