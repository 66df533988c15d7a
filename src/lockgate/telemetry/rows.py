"""A span as a row of the traces database, with the secrets taken out of its text. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.telemetry.model import Span
from lockgate.telemetry.redaction import may_hold_secrets, redact, redact_bytes

COLUMNS = (
    "trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "end_ns", "status", "status_message", "run_id",
    "agent", "effective_digest", "model", "input_tokens", "output_tokens", "cost_nano", "attributes", "events",
)  # fmt: skip
Row = tuple[Any, ...]
_MESSAGE, _ATTRIBUTES, _EVENTS = (COLUMNS.index(name) for name in ("status_message", "attributes", "events"))
_EMPTY = b"{}", b"[]"


def to_row(span: Span) -> Row:
    """A span as a row of ``spans``: columns in the order of :data:`COLUMNS`, secrets taken out."""
    return redacted([unredacted(span)])[0]


def redacted(rows: list[Row]) -> list[Row]:
    """The rows with secrets taken out of their text. Looked at together first: most hold none."""
    texts = (text for row in rows for text in (row[_MESSAGE].encode(), row[_ATTRIBUTES], row[_EVENTS]))
    return [_redacted(row) for row in rows] if may_hold_secrets(b"\n".join(texts)) else rows


def _redacted(row: Row) -> Row:
    cells = list(row)
    cells[_MESSAGE] = redact(row[_MESSAGE])
    cells[_ATTRIBUTES] = redact_bytes(row[_ATTRIBUTES])
    cells[_EVENTS] = redact_bytes(row[_EVENTS])
    return tuple(cells)


def unredacted(span: Span) -> Row:
    """Raises TypeError, ValueError or RecursionError for attributes that are no JSON."""
    return (
        span.trace_id,
        span.span_id,
        span.parent_id,
        _text(span.name),
        span.kind,
        span.start_ns,
        span.end_ns,
        span.status,
        _text(span.status_message),
        span.run_id,
        _maybe(span.agent),
        span.effective_digest,
        _maybe(span.model),
        span.input_tokens,
        span.output_tokens,
        span.cost_nano,
        _json(span.attributes) if span.attributes else _EMPTY[0],
        _json(span.events) if span.events else _EMPTY[1],
    )


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # half of a surrogate pair, as models do emit
        return msgspec.json.encode(cleaned(value), enc_hook=str)


def cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(key)): cleaned(item) for key, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, (list, tuple)) else value


def _text(value: str) -> str:
    """Text any database takes: no lone surrogates, no NUL."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "").encode("utf-8", "replace").decode()


def _maybe(value: str | None) -> str | None:
    return None if value is None else _text(value)
