"""How things become digests: the same on every machine, in every folder, on every day.

A digest is ``sha256:<hex>`` of canonical bytes. Canonical JSON is RFC 8785, except where the order of keys is
itself behaviour: a model fills in an output schema's properties in the order they stand, so schemas keep it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import rfc8785

from lockgate.errors import InputError

LOCKGATE_BEHAVIOUR = 1
"""Counts changes of Lockgate's own behaviour that can change an answer (the loop, the way tools are offered)."""


def sha256(data: bytes) -> str:
    """``sha256:<hex>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON. Raises :class:`InputError` for what JSON cannot carry exactly."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as wrong:
        raise InputError(f"not canonical JSON: {wrong}", remedy="use finite numbers below 2^53") from None


def ordered(value: Any) -> bytes:
    """Compact JSON with keys in the order given; numbers as RFC 8785 would (``1.0`` is ``1``)."""
    return json.dumps(_plain_numbers(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return value


def nfc(path: str) -> str:
    """A POSIX path as it is named in bundles: Unicode NFC, whatever form the disk keeps."""
    return unicodedata.normalize("NFC", path)


def tree_digest(files: Mapping[str, str]) -> str:
    """One digest for many files, given ``path → digest``."""
    return sha256(canonical({nfc(path): digest for path, digest in files.items()}))


def effective_digest(behaviour: str, providers: Mapping[str, Mapping[str, Any]], overlay: Mapping[str, Any]) -> str:
    """What is gated, served and recorded: the behaviour as one environment resolves it.

    ``providers``: by name, what of each can change an answer (kind, URL, weights); ``overlay``: what else the
    environment changes. The environment's name is not in it: two that resolve alike share a digest.
    """
    return sha256(
        canonical(
            {
                "behaviour": behaviour,
                "lockgate": LOCKGATE_BEHAVIOUR,
                "overlay": dict(overlay),
                "providers": {name: dict(identity) for name, identity in providers.items()},
            }
        )
    )
