"""This installation's signing key: made in the state folder on first use, readable by its owner alone.

After a rotation the retired public keys stay known, so that what they signed still counts here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lockgate.errors import Corrupt
from lockgate.versions.attestation import key_id, key_text, public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_FILE = "attestation.key"
RETIRED_FILE = "attestation.retired.json"
_REMEDY = "restore it; or delete it and run the gates again"


class RetiredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that signed here before a rotation."""

    public: str
    retired_at: float


def signing_key(home: Path) -> Ed25519PrivateKey:
    """This installation's key (PEM, mode 0600), made on first use. Two processes that race agree on one key."""
    path = home / KEY_FILE
    if not path.exists():
        _create(path, _fresh())
    return _read(path)


def own_keys(home: Path) -> list[Ed25519PublicKey]:
    """The present public key, then the retired ones, the latest first."""
    retired = sorted(retired_keys(home), key=lambda one: -one.retired_at)
    return [signing_key(home).public_key(), *(public_key(one.public) for one in retired)]


def retired_keys(home: Path) -> list[RetiredKey]:
    """What was rotated away and still counts here."""
    path = home / RETIRED_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[RetiredKey])
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError as wrong:
        raise Corrupt(f"{str(path)!r} is not a list of keys: {wrong}", remedy=_REMEDY) from None


def rotate(home: Path, *, now: float, revoke: bool = False) -> tuple[str, str]:
    """Replace the key; returns the old and the new key's id. With ``revoke`` the old one, and all that were retired
    before it, stop to count here: for a key that somebody else may have. Callers hold the lock guard."""
    old = signing_key(home).public_key()
    retired = [] if revoke else [*retired_keys(home), RetiredKey(public=key_text(old), retired_at=now)]
    # The old key is noted as retired first: a crash in between leaves a key that is both, which is harmless.
    _write(home / RETIRED_FILE, msgspec.json.encode(retired))
    _write(home / KEY_FILE, _fresh())
    return key_id(old), key_id(signing_key(home).public_key())


def _fresh() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as wrong:
        raise Corrupt(f"{str(path)!r} is not a private key: {wrong}", remedy=_REMEDY) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt(f"{str(path)!r} is not an Ed25519 key", remedy=_REMEDY)
    return key


def _create(path: Path, data: bytes) -> None:
    """Write a file that is not there yet; another process that was first keeps its own."""
    temporary = _draft(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    os.replace(_draft(path, data), path)


def _draft(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary
