"""Secrets are references, resolved where they are used and never stored, logged or traced.

``${env:NAME}``, ``${file:path}`` (relative to the project; its last line end is dropped), ``${vault:path#field}``,
``${aws:name#field}``, ``${gcp:name#field}``, ``${doppler:NAME}``, ``${infisical:NAME}``. Anything else is refused: a
key written into a file would go into git. Each store is one module of :mod:`lockgate.project.secrets.stores`.

A store on the network is asked once a minute at most. While it does not answer, the value it gave last holds for an
hour: a store that restarts must not stop what runs. Values live in this process's memory alone.
"""

from __future__ import annotations

import importlib
import re
import threading
import time
from pathlib import Path

from lockgate.errors import InputError, Unavailable

REFERENCE = re.compile(r"\$\{(?P<kind>[a-z]+):(?P<name>[^}]+)\}")
STORES = ("env", "file", "vault", "aws", "gcp", "doppler", "infisical")
AT_HAND = ("env", "file")
"""Stores that cost nothing to ask: read each time, so a change is seen at once."""

FRESH_SECONDS = 60.0
STALE_SECONDS = 3600.0
_EXAMPLE = "write a reference: ${env:NAME}, ${file:path} or ${vault:path#field}"

_values: dict[tuple[str, Path], tuple[float, str]] = {}
_asking = threading.Lock()


def check_reference(reference: str) -> None:
    """Raise :class:`InputError` when this is not a reference Lockgate can resolve. The value is not shown."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError("a secret stands here in plain text (not shown)", remedy=_EXAMPLE)
    if match["kind"] not in STORES:
        known = ", ".join(STORES)
        raise InputError(f"no secret store {match['kind']!r} in {reference!r}", remedy=f"there are {known}")


def is_at_hand(reference: str) -> bool:
    """True when resolving it waits for nobody; also for what is no reference, which is refused at once."""
    match = REFERENCE.fullmatch(reference)
    return match is None or match["kind"] in AT_HAND


def resolve_secret(reference: str | None, root: Path) -> str | None:
    """The secret's value, or None for no reference. ``root`` is the project's folder.

    May wait for a store on the network, some seconds at most. Raises :class:`Unavailable` when there is no value.
    """
    if reference is None:
        return None
    check_reference(reference)
    match = REFERENCE.fullmatch(reference)
    assert match is not None
    kind, name = match["kind"], match["name"].strip()
    if kind in AT_HAND:
        return _read(kind, name, root)
    key = (reference, root)
    with _asking:  # whoever comes second finds what the first one brought
        known, now = _values.get(key), time.monotonic()
        if known is not None and now - known[0] < FRESH_SECONDS:
            return known[1]
        try:
            value = _read(kind, name, root)
        except Unavailable:
            if known is None or now - known[0] > STALE_SECONDS:
                raise
            return known[1]
        _values[key] = (now, value)
        return value


def is_reference(value: str) -> bool:
    """Whether it is meant for a reference. What is none is no secret, but a plain value."""
    return value.startswith("${")


def header_value(value: str, root: Path) -> str:
    """What a configured header says: a reference's value, or the plain one."""
    return (resolve_secret(value, root) or "") if is_reference(value) else value


def forget_secrets() -> None:
    """Ask the stores again at the next use: after a rotation, or when a value was refused."""
    with _asking:
        _values.clear()


def _read(kind: str, name: str, root: Path) -> str:
    value: str = importlib.import_module(f"lockgate.project.secrets.stores.{kind}").read(name, root)
    return value
