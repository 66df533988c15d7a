"""Signed verdicts: an in-toto statement in a DSSE envelope, signed with Ed25519.

The statement's subject is the effective digest; its predicate says which golden set and rubric gave which verdict.
Envelope and signing follow https://github.com/secure-systems-lab/dsse. Pure: keys are given
(:mod:`lockgate.versions.signing` keeps this machine's).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError
from lockgate.versions.digest import canonical, sha256
from lockgate.versions.model import Attestation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "lockgate/gate/v1"


def key_id(key: Ed25519PublicKey) -> str:
    """``ed25519:<16 hex>``: names a public key."""
    return "ed25519:" + sha256(key.public_bytes_raw()).removeprefix("sha256:")[:16]


def key_text(key: Ed25519PublicKey) -> str:
    """``ed25519:<base64>``: the public key itself, as ``trusted_keys`` in ``lockgate.yaml`` takes it."""
    return "ed25519:" + base64.b64encode(key.public_bytes_raw()).decode()


def public_key(text: str) -> Ed25519PublicKey:
    """A public key as :func:`key_text` writes it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    kind, _, value = text.partition(":")
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        raw = b""
    if kind != "ed25519" or len(raw) != 32:
        raise InputError(f"{text!r} is not a public key", remedy="`lockgate attest keys` prints it: ed25519:… (44)")
    return Ed25519PublicKey.from_public_bytes(raw)


def sign(attestation: Attestation, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope. ``attestation.signer`` is not in what is signed: the key says it.

    The bundle is the second subject, so that tools which look an attestation up by the manifest's digest find it.
    """
    payload = canonical(
        {
            "_type": STATEMENT,
            "subject": [
                {
                    "name": attestation.agent,
                    "digest": {"sha256": attestation.effective_digest.removeprefix("sha256:")},
                },
                {
                    "name": "bundle",
                    "digest": {"sha256": attestation.behaviour_digest.removeprefix("sha256:")},
                },
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


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an envelope says, whoever made it. ``attestation.signer`` is empty: nothing was checked."""

    attestation: Attestation
    signers: tuple[str, ...]  # key ids that it names


def read(envelope: Mapping[str, Any]) -> Claim | None:
    """What the envelope claims, unchecked; None when it is no gate attestation."""
    payload = _payload(envelope)
    attestation = None if payload is None else _attestation(payload, "")
    if attestation is None:
        return None
    try:
        names = tuple(str(one["keyid"]) for one in envelope["signatures"])
    except (KeyError, TypeError):
        names = ()
    return Claim(attestation=attestation, signers=names)


def verify(envelope: Mapping[str, Any], keys: Mapping[str, Ed25519PublicKey]) -> Attestation | None:
    """The attestation, when one of ``keys`` (by key id) signed it; None for any other envelope."""
    from cryptography.exceptions import InvalidSignature

    payload = _payload(envelope)
    if payload is None:
        return None
    try:
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


def _payload(envelope: Mapping[str, Any]) -> bytes | None:
    try:
        if envelope["payloadType"] != PAYLOAD_TYPE:
            return None
        return base64.b64decode(envelope["payload"], validate=True)
    except (KeyError, TypeError, ValueError):
        return None


def _attestation(payload: bytes, signer: str) -> Attestation | None:
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except msgspec.MsgspecError:
        return None
    if statement.type != STATEMENT or statement.predicate_type != PREDICATE or not statement.subject:
        return None
    subject, predicate = statement.subject[0], statement.predicate
    return Attestation(
        id=predicate.id,
        agent=subject.name,
        behaviour_digest=predicate.behaviour,
        effective_digest="sha256:" + subject.digest.get("sha256", ""),
        golden_digest=predicate.golden,
        rubric_digest=predicate.rubric,
        verdict=predicate.verdict,
        details=predicate.details,
        signer=signer,
        created_at=predicate.at,
    )


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Predicate(msgspec.Struct, frozen=True):
    id: str
    behaviour: str
    golden: str
    rubric: str
    verdict: str
    details: dict[str, Any]
    at: float


class _Statement(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")
    predicate_type: str = msgspec.field(name="predicateType")
    subject: list[_Subject]
    predicate: _Predicate


def _encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed says its own type and length."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
