"""Canaries: each planted secret is gone, and what only looks like one stays."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.telemetry.model import Span
from lockgate.telemetry.redaction import MASK, may_hold_secrets, redact, redact_bytes
from lockgate.telemetry.rows import redacted, to_row, unredacted

CANARIES = {
    "openai": "sk-proj-canary0123456789abcdefghij",
    "anthropic": "sk-ant-api03-canary_0123456789-abcdef",
    "lockgate key": "lgk_canary0123456789abcdefghijklmn",
    "run token": "lgr_eyJydW4iOiJjYW5hcnkifQcanary.canary0123_456-789",
    "aws": "AKIACANARY0123456789",
    "google": "AIzaCanary0123456789abcdefghijklmnopqrs",
    "github": "ghp_canary0123456789abcdefghijklmnopqrstu",
    "gitlab": "glpat-canary0123456789abcd",
    "hugging face": "hf_canary0123456789abcdefghijklmnop",
    "slack": "xoxb-canary-0123456789",
    "stripe": "sk_live_canary0123456789",
    "vault": "hvs.canary0123456789abcdef",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-signature-0",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIcanary\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("secret", CANARIES.values(), ids=CANARIES.keys())
def test_a_planted_secret_is_gone_from_text_and_from_json_in_json(secret: str) -> None:
    inner = msgspec.json.encode({"note": f"use {secret} please"}).decode()
    recorded = redact_bytes(msgspec.json.encode({"body": inner, "text": f"and {secret}."}))
    assert b"canary" not in recorded.lower()
    body = msgspec.json.decode(recorded)
    assert msgspec.json.decode(body["body"]) == {"note": f"use {MASK} please"}
    assert body["text"] == f"and {MASK}."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"api_key": "short"}', '{"api_key": "[redacted]"}'),
        ('{"X-API-Key":"a\\"b","n":1}', '{"X-API-Key":"[redacted]","n":1}'),
        (
            r'{"body":"{\"password\": \"pw\", \"n\": \"kept\"}"}',
            r'{"body":"{\"password\": \"[redacted]\", \"n\": \"kept\"}"}',
        ),
        ("Authorization: Bearer abcdefgh123", "Authorization: Bearer [redacted]"),
        ("postgres://lockgate:pw@db/main", "postgres://lockgate:[redacted]@db/main"),
        ("client_secret='s3'", "client_secret='[redacted]'"),
    ],
)
def test_a_value_goes_for_its_name_or_place(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"gen_ai.usage.input_tokens":120,"max_tokens":"512"}',
        "The secret of a good refund policy is a bearer of good news.",
        "order #4411, task-force sk-8, a sky-blue mug",
        "https://shop.example/orders?id=4411",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "run_01k2h8jv9m4c6d8f0g2h4j6k8m",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda v: st.lists(v) | st.dictionaries(st.sampled_from(["api_key", "secret", "x"]) | st.text(), v),
    )
)
def test_redacted_json_is_still_json(value: object) -> None:
    msgspec.json.decode(redact_bytes(msgspec.json.encode(value)))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text() | st.sampled_from(["Bearer abcdefgh1234", "api_key: 'x'", "sk-" + "a" * 20, "https://a:b@c"]))
def test_what_cannot_hold_a_secret_is_left_as_it_is(text: str) -> None:
    data = text.encode("utf-8", "replace")
    assert may_hold_secrets(data) or redact_bytes(data) == data


def test_one_secret_among_many_spans_is_taken_out() -> None:
    def span(message: str) -> Span:
        return Span(trace_id=b"t" * 16, span_id=b"s" * 8, parent_id=None, name="x", start_ns=1, end_ns=2,
                    status_message=message, attributes={"a": message}, events=[{"b": message}])  # fmt: skip

    rows = redacted([to_row(span("fine")), unredacted(span("key lgk_" + "x" * 43)), to_row(span("fine"))])
    assert "lgk_" not in repr(rows)
    assert rows[0] == to_row(span("fine"))
