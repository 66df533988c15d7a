"""A span, as OpenTelemetry has it, with the GenAI semantic-convention names for what models and tools did."""

from __future__ import annotations

from typing import Any

import msgspec

INTERNAL, SERVER, CLIENT = 1, 2, 3  # span kinds
UNSET, OK, ERROR = 0, 1, 2  # status codes


class Span(msgspec.Struct, kw_only=True):
    """One step of a trace. Times are Unix nanoseconds; ids are raw bytes (16 and 8).

    ``run_id`` … ``cost_nano`` are columns of their own because people look things up by them. Tokens and cost
    stand only on leaf inference spans (``chat``, ``embeddings``), so that a sum over a trace counts each once.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    kind: int = INTERNAL
    start_ns: int
    end_ns: int
    status: int = UNSET
    status_message: str = ""
    run_id: str | None = None
    agent: str | None = None
    effective_digest: str | None = None
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    events: list[dict[str, Any]] = msgspec.field(default_factory=list)
