"""OTLP through the front door: with a key, for the tenant, under the run."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.gateway.model import RunClaims
from lockgate.gateway.tokens import sign

if TYPE_CHECKING:
    from conftest import RunningGateway

SPAN = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "retrieve", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}


def post(gateway: RunningGateway, body: bytes, credential: str = "", **headers: str) -> tuple[int, Any]:
    headers = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    if credential:
        headers["authorization"] = f"Bearer {credential}"
    request = urllib.request.Request(gateway.url + "/v1/traces", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def exported(*spans: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def test_an_exporters_spans_are_stored_for_the_keys_tenant(gateway: RunningGateway) -> None:
    body = gzip.compress(exported(SPAN))
    assert post(gateway, body, gateway.key(), content_encoding="gzip") == (200, {})
    (row,) = gateway.spans()
    assert (row.trace_id.hex(), row.name, row.run_id) == ("ab" * 16, "retrieve", None)
    assert msgspec.json.decode(row.attributes) == {"lockgate.tenant": "acme"}


def test_spans_sent_under_a_run_token_belong_to_the_run(gateway: RunningGateway) -> None:
    claims = RunClaims(
        run_id="run_1",
        agent="triage",
        environment="dev",
        tenant="acme",
        behaviour_digest="sha256:" + "a" * 64,
        effective_digest="sha256:" + "b" * 64,
        arm="stable",
        trace_id="ab" * 16,
        depth=0,
        expires_at=gateway.app.clock() + 3600,
        max_usd_nano=None,
        max_llm_calls=1,
        max_tokens=1,
    )
    assert post(gateway, exported(SPAN), sign(claims, gateway.app.secret))[0] == 200
    (row,) = gateway.spans()
    assert (row.run_id, row.agent, row.effective_digest) == ("run_1", "triage", "sha256:" + "b" * 64)


def test_a_malformed_span_is_counted_and_the_others_are_kept(gateway: RunningGateway) -> None:
    status, answer = post(gateway, exported(SPAN | {"spanId": "x"}, SPAN), gateway.key())
    assert (status, answer["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert len(gateway.spans()) == 1


def test_no_key_and_protobuf_are_refused_with_a_remedy(gateway: RunningGateway) -> None:
    assert post(gateway, exported(SPAN))[0] == 401
    status, answer = post(gateway, b"\x0a", gateway.key(), content_type="application/x-protobuf")
    assert status == 400
    assert "http/json" in json.dumps(answer)
    assert gateway.spans() == []
