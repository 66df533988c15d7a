"""Signed verdicts: what is read back is what this key signed, or nothing."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockgate.errors import Corrupt
from lockgate.versions.attestation import key_id, sign, verify
from lockgate.versions.model import Attestation
from lockgate.versions.signing import KEY_FILE, signing_key

VERDICT = Attestation(
    id="att_1",
    agent="triage",
    verdict="pass",
    **{f"{part}_digest": f"sha256:{part}" for part in ("behaviour", "effective", "golden", "rubric")},
    details={"cases": 60, "mean": 0.93},
    signer="",
    created_at=1_700_000_000.5,
)


def test_a_signed_verdict_is_read_back_with_its_signer(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    public = key.public_key()
    read = verify(sign(VERDICT, key), {key_id(public): public})
    assert read == msgspec.structs.replace(VERDICT, signer=key_id(public))


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first, second = signing_key(tmp_path / "home"), signing_key(tmp_path / "home")
    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert (tmp_path / "home" / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == [KEY_FILE]


def test_a_key_file_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("nonsense")
    with pytest.raises(Corrupt, match="not a private key"):
        signing_key(tmp_path)


def test_another_key_or_another_word_is_no_attestation(tmp_path: Path) -> None:
    key, stranger = signing_key(tmp_path), Ed25519PrivateKey.generate()
    keys = {key_id(key.public_key()): key.public_key()}
    envelope = sign(VERDICT, key)
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["predicate"]["verdict"] = "fail"
    changed = {**envelope, "payload": base64.b64encode(json.dumps(payload).encode()).decode()}
    claimed = sign(VERDICT, stranger)
    claimed["signatures"][0]["keyid"] = key_id(key.public_key())
    for wrong in (
        changed,
        sign(VERDICT, stranger),
        claimed,
        {**envelope, "payloadType": "text/plain"},
        {**envelope, "signatures": []},
        {**envelope, "payload": "%"},
        {},
    ):
        assert verify(wrong, keys) is None
