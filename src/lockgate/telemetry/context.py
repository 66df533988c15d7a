"""Trace context: ids, and the W3C ``traceparent`` header (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from random import getrandbits  # seeded by the system, anew in each process; ids are no secrets
from time import time
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """Where a span hangs: its trace (16 bytes), the span above it (8 bytes), and whether the caller records."""

    trace_id: bytes
    span_id: bytes
    sampled: bool = True


def new_trace_id() -> bytes:
    """16 bytes: the second, and twelve random ones.

    So spans lie in the order of time also by their ids, and one that is written joins those of a moment ago. At random
    places in the index of a large database it takes twice the time, and three times the bytes.
    """
    return (int(time()) << 96 | getrandbits(96)).to_bytes(16)


def new_span_id() -> bytes:
    """8 random bytes."""
    return getrandbits(64).to_bytes(8)


def parse_traceparent(header: str | None) -> TraceContext | None:
    """The context a caller sent, or None when there is none or it is malformed (the standard says: then start anew)."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(span, 16):
        return None
    return TraceContext(bytes.fromhex(trace), bytes.fromhex(span), bool(int(flags, 16) & 1))


def format_traceparent(trace_id: bytes, span_id: bytes, *, sampled: bool = True) -> str:
    """``00-<trace>-<span>-01``, for the request to the next service."""
    return f"00-{trace_id.hex()}-{span_id.hex()}-{'01' if sampled else '00'}"
