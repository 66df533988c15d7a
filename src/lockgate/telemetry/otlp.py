"""OTLP/HTTP trace requests in JSON, as any OpenTelemetry exporter sends them, turned into spans. Pure.

Shapes: https://opentelemetry.io/docs/specs/otlp/ (ids are hex, 64-bit integers are strings, names are camelCase).
Attribute names: the GenAI semantic conventions, and the older ones of OpenLLMetry and OpenInference for tokens.
A span that is malformed is rejected alone and counted, as the protocol's ``partialSuccess`` has it.
"""

from __future__ import annotations

import gzip
import math
import zlib
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.telemetry.model import Span

MAX_BYTES = 8 * 1024 * 1024
"""Of a request, also after decompression. An exporter's usual batch of 512 spans has less than one."""

_INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
_MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
_AGENT = ("gen_ai.agent.name", "agent.name")


class Ingest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request held: its good spans, and how many were not, with the first reason."""

    spans: list[Span]
    rejected: int = 0
    reason: str = ""

    def response(self) -> dict[str, Any]:
        """The body of the answer, status 200."""
        if not self.rejected:
            return {}
        return {"partialSuccess": {"rejectedSpans": str(self.rejected), "errorMessage": self.reason}}


class _Value(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    bytes_value: str | None = None
    array_value: _Array | None = None
    kvlist_value: _Pairs | None = None


class _Array(msgspec.Struct):
    values: list[_Value] = msgspec.field(default_factory=list)


class _Pair(msgspec.Struct):
    key: str
    value: _Value = msgspec.field(default_factory=_Value)


class _Pairs(msgspec.Struct):
    values: list[_Pair] = msgspec.field(default_factory=list)


class _Event(msgspec.Struct, rename="camel"):
    name: str = ""
    time_unix_nano: int | str = 0
    attributes: list[_Pair] = msgspec.field(default_factory=list)


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str
    span_id: str
    name: str = ""
    parent_span_id: str = ""
    kind: int = 0
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Pair] = msgspec.field(default_factory=list)
    events: list[_Event] = msgspec.field(default_factory=list)
    status: _Status = msgspec.field(default_factory=_Status)


class _Scope(msgspec.Struct):
    spans: list[msgspec.Raw] = msgspec.field(default_factory=list)


class _Resource(msgspec.Struct):
    attributes: list[_Pair] = msgspec.field(default_factory=list)


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: _Resource = msgspec.field(default_factory=_Resource)
    scope_spans: list[_Scope] = msgspec.field(default_factory=list)


class _Request(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] = msgspec.field(default_factory=list)


_request = msgspec.json.Decoder(_Request)
_span = msgspec.json.Decoder(_Span)


def read_json(body: bytes, *, content_type: str = "application/json", content_encoding: str = "") -> Ingest:
    """The spans of an ``ExportTraceServiceRequest``. Raises :class:`InputError` when it is wrong as a whole."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InputError(
            f"content-type {content_type!r} is not supported",
            remedy="send OTLP as JSON: OTEL_EXPORTER_OTLP_PROTOCOL=http/json, or a collector with encoding: json",
        )
    body = _unpacked(body, content_encoding)
    try:
        request = _request.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"not an OTLP trace request: {error}", remedy="send OTLP/HTTP JSON to /v1/traces") from None
    spans: list[Span] = []
    rejected, reason = 0, ""
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for raw in scope.spans:
                try:
                    spans.append(_to_span(_span.decode(raw), resource))
                except (msgspec.MsgspecError, ValueError) as error:
                    rejected, reason = rejected + 1, reason or f"span {rejected + len(spans)}: {error}"
    return Ingest(spans=spans, rejected=rejected, reason=reason)


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding not in ("", "identity", "gzip"):
        raise InputError(f"content-encoding {encoding!r} is not supported", remedy="use gzip, or none")
    if encoding == "gzip":
        try:
            unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            body = unpack.decompress(body, MAX_BYTES + 1)
        except (zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"the body is not gzip: {error}") from None
    if len(body) > MAX_BYTES:
        raise InputError(f"the request is over {MAX_BYTES} bytes", remedy="export smaller batches")
    return body


def _to_span(sent: _Span, resource: dict[str, Any]) -> Span:
    attributes = _attributes(sent.attributes)
    trace_id, span_id = _identifier(sent.trace_id, 16, "traceId"), _identifier(sent.span_id, 8, "spanId")
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=_identifier(sent.parent_span_id, 8, "parentSpanId") if sent.parent_span_id else None,
        name=sent.name,
        kind=sent.kind,
        start_ns=int(sent.start_time_unix_nano),
        end_ns=int(sent.end_time_unix_nano),
        status=sent.status.code,
        status_message=sent.status.message,
        agent=_text(attributes, _AGENT) or _text(resource, ("service.name",)),
        model=_text(attributes, _MODEL),
        input_tokens=_count(attributes, _INPUT_TOKENS),
        output_tokens=_count(attributes, _OUTPUT_TOKENS),
        attributes=attributes | ({"resource": resource} if resource else {}),
        events=[
            {"name": event.name, "time_ns": int(event.time_unix_nano), "attributes": _attributes(event.attributes)}
            for event in sent.events
        ],
    )


def _identifier(text: str, length: int, name: str) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != length or not any(value):
        raise ValueError(f"{name} {text!r} is not {2 * length} hex digits, not all zero")
    return value


def _attributes(pairs: list[_Pair]) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: _Value) -> Any:
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return value.bool_value
    if value.int_value is not None:
        return int(value.int_value)
    if value.double_value is not None:
        return float(value.double_value)
    if value.array_value is not None:
        return [_plain(item) for item in value.array_value.values]
    if value.kvlist_value is not None:
        return _attributes(value.kvlist_value.values)
    return value.bytes_value


def _text(attributes: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if isinstance(value := attributes.get(name), str) and value), None)


def _count(attributes: dict[str, Any], names: tuple[str, ...]) -> int:
    value = next((attributes[name] for name in names if name in attributes), 0)
    return min(max(0, int(value)), 2**53) if isinstance(value, (int, float)) and math.isfinite(value) else 0
