"""Signed verdicts: an in-toto statement in a DSSE envelope, signed with Ed25519.

The statement's subject is the effective digest; its predicate says which golden set and rubric gave which verdict.
Envelope and signing follow https://github.com/secure-systems-lab/dsse; the key is made in the state folder on first
use, readable by its owner alone.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import Corrupt
from lockgate.versions.digest import canonical, sha256
from lockgate.versions.model import Attestation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "lockgate/gate/v1"
KEY_FILE = "attestation.key"


def signing_key(home: Path) -> Ed25519PrivateKey:
    """This installation's key (PEM, mode 0600), made on first use. Two processes that race agree on one key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = home / KEY_FILE
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _create_once(path, pem)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as wrong:
        raise Corrupt(f"{str(path)!r} is not a private key: {wrong}", remedy="restore it, or delete it") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt(f"{str(path)!r} is not an Ed25519 key", remedy="restore it, or delete it")
    return key


def _create_once(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first: its key is the one
    finally:
        temporary.unlink(missing_ok=True)


def key_id(key: Ed25519PublicKey) -> str:
    """``ed25519:<16 hex>``: names a public key."""
    return "ed25519:" + sha256(key.public_bytes_raw()).removeprefix("sha256:")[:16]


def sign(attestation: Attestation, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope. ``attestation.signer`` is not in what is signed: the key says it."""
    payload = canonical(
        {
            "_type": STATEMENT,
            "subject": [
                {
                    "name": attestation.agent,
                    "digest": {"sha256": attestation.effective_digest.removeprefix("sha256:")},
                }
            ],
            "predicateType": PREDICATE,
            "predicate": {
                "id": attestation.id,
                "behaviour": attestation.behaviour_digest,
                "golden": attestation.golden_digest,
                "rubric": attestation.rubric_digest,
                "verdict": attestation.verdict,
                "details": attestation.details,
                "at": attestation.created_at,
            },
        }
    )
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(key.sign(_encoding(payload))).decode()}
        ],
    }


def verify(envelope: dict[str, Any], keys: dict[str, Ed25519PublicKey]) -> Attestation | None:
    """The attestation, when one of ``keys`` (by key id) signed it; None for any other envelope."""
    from cryptography.exceptions import InvalidSignature

    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        if envelope["payloadType"] != PAYLOAD_TYPE:
            return None
        signatures = [(keys.get(one["keyid"]), base64.b64decode(one["sig"])) for one in envelope["signatures"]]
    except (KeyError, TypeError, ValueError):
        return None
    for key, signature in signatures:
        if key is None:
            continue
        try:
            key.verify(signature, _encoding(payload))
        except InvalidSignature:
            continue
        return _attestation(payload, key_id(key))
    return None


def _attestation(payload: bytes, signer: str) -> Attestation | None:
    statement = msgspec.json.decode(payload)
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
        return None
    subject, predicate = statement["subject"][0], statement["predicate"]
    return Attestation(
        id=predicate["id"],
        agent=subject["name"],
        behaviour_digest=predicate["behaviour"],
        effective_digest="sha256:" + subject["digest"]["sha256"],
        golden_digest=predicate["golden"],
        rubric_digest=predicate["rubric"],
        verdict=predicate["verdict"],
        details=predicate["details"],
        signer=signer,
        created_at=float(predicate["at"]),
    )


def _encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed says its own type and length."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
