"""OTLP JSON as exporters send it."""

from __future__ import annotations

import gzip
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.telemetry import otlp
from lockgate.telemetry.model import CLIENT, ERROR

SPAN: dict[str, Any] = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "parentSpanId": "eee19b7ec3c1b173",
    "name": "chat gpt-4o-mini",
    "kind": 3,
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": "1544712661000000000",
    "attributes": [
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o-mini"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "120"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": 7}},
        {"key": "stop", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"boolValue": False}]}}},
        {"key": "more", "value": {"kvlistValue": {"values": [{"key": "x", "value": {"doubleValue": 0.5}}]}}},
        {"key": "empty", "value": {}},
    ],
    "events": [{"name": "exception", "timeUnixNano": "5", "attributes": []}],
    "status": {"code": 2, "message": "timeout"},
    "flags": 257,
}


def request(*spans: Any, service: str = "") -> bytes:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]} if service else {}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]})


def test_a_span_is_read_with_the_columns_people_look_up() -> None:
    (span,) = otlp.read_json(request(SPAN, service="shop")).spans
    assert (span.trace_id.hex(), span.span_id.hex()) == (SPAN["traceId"], SPAN["spanId"])
    assert span.parent_id is not None
    assert (span.kind, span.status, span.status_message) == (CLIENT, ERROR, "timeout")
    assert (span.end_ns - span.start_ns, span.model, span.agent) == (1_000_000_000, "gpt-4o-mini", "shop")
    assert (span.input_tokens, span.output_tokens, span.cost_nano, span.run_id) == (120, 7, 0, None)
    assert span.attributes["stop"] == ["a", False]
    assert span.attributes["more"] == {"x": 0.5}
    assert span.events == [{"name": "exception", "time_ns": 5, "attributes": {}}]


def test_gzip_is_unpacked() -> None:
    body = gzip.compress(request(SPAN))
    assert len(otlp.read_json(body, content_encoding="gzip").spans) == 1


@pytest.mark.parametrize(
    "broken",
    [SPAN | {"traceId": "00" * 16}, SPAN | {"spanId": "abc"}, SPAN | {"startTimeUnixNano": "soon"}, {"name": "x"}, 7],
)
def test_a_malformed_span_is_rejected_alone(broken: Any) -> None:
    read = otlp.read_json(request(broken, SPAN))
    assert (len(read.spans), read.rejected) == (1, 1)
    assert read.response()["partialSuccess"]["rejectedSpans"] == "1"


def test_full_success_says_nothing() -> None:
    assert otlp.read_json(request(SPAN)).response() == {}


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"", ""), (b"[]", ""), (b"\xff", ""), (b'{"resourceSpans":7}', ""), (b"plain", "gzip"), (b"{}", "br")],
)
def test_a_request_that_is_no_request_is_an_input_error(body: bytes, encoding: str) -> None:
    with pytest.raises(InputError):
        otlp.read_json(body, content_encoding=encoding)


def test_protobuf_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="x-protobuf") as refused:
        otlp.read_json(b"", content_type="application/x-protobuf")
    assert "http/json" in (refused.value.remedy or "")


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="over 1000 bytes"):
        otlp.read_json(gzip.compress(b" " * 100_000), content_encoding="gzip")


@pytest.mark.parametrize(
    "tokens", [{"stringValue": "many"}, {"doubleValue": "NaN"}, {"doubleValue": "Infinity"}, {"intValue": "-5"}, {}]
)
def test_a_token_count_that_is_none_counts_nothing(tokens: dict[str, Any]) -> None:
    attributes = [{"key": "gen_ai.usage.input_tokens", "value": tokens}]
    assert [span.input_tokens for span in otlp.read_json(request(SPAN | {"attributes": attributes})).spans] == [0]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    for encoding in ("", "gzip"):
        try:
            otlp.read_json(body, content_encoding=encoding)
        except InputError:
            continue
