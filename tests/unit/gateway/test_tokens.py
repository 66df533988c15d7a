"""Run tokens: what is signed comes back, and nothing else does."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import Expired, Unauthenticated
from lockgate.gateway.model import RunClaims
from lockgate.gateway.problems import openai_error
from lockgate.gateway.tokens import sign, verify

SECRET = b"s" * 32
CLAIMS = RunClaims(
    run_id="run_1",
    agent="triage",
    environment="prod",
    tenant="acme",
    behaviour_digest="sha256:aa",
    effective_digest="sha256:bb",
    arm="stable",
    trace_id="0" * 31 + "1",
    depth=0,
    expires_at=1000.0,
    max_usd_nano=5,
    max_llm_calls=10,
    max_tokens=50_000,
)


def test_a_token_says_what_was_signed() -> None:
    assert verify(sign(CLAIMS, SECRET), SECRET, now=999.9) == CLAIMS


def test_a_token_is_refused_from_its_expiry_on() -> None:
    with pytest.raises(Expired, match="the token of run 'run_1' has expired, at 1970-01-01 00:16:40 UTC") as refused:
        verify(sign(CLAIMS, SECRET), SECRET, now=1000.0)
    error = msgspec.json.decode(openai_error(refused.value)[2])["error"]
    assert (error["code"], error["what"], error["expired_at"]) == ("expired", "run_token", 1000.0)


def test_another_machines_token_is_refused() -> None:
    with pytest.raises(Unauthenticated, match="signature"):
        verify(sign(CLAIMS, b"t" * 32), SECRET, now=0)


def test_claims_cannot_be_exchanged_under_a_signature() -> None:
    richer = sign(msgspec.structs.replace(CLAIMS, max_usd_nano=10**12), b"t" * 32)
    forged = richer.partition(".")[0] + "." + sign(CLAIMS, SECRET).partition(".")[2]
    with pytest.raises(Unauthenticated, match="signature"):
        verify(forged, SECRET, now=0)


@given(st.integers(0, 500), st.characters())
def test_any_changed_character_is_noticed(position: int, character: str) -> None:
    token = sign(CLAIMS, SECRET)
    position %= len(token)
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        with pytest.raises(Unauthenticated):
            verify(changed, SECRET, now=0)


@given(st.text())
def test_nonsense_is_refused_and_never_crashes(text: str) -> None:
    for token in (text, "lgr_" + text, f"lgr_{text}.{text}"):
        with pytest.raises(Unauthenticated):
            verify(token, SECRET, now=0)
