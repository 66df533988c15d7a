"""What answers of several protocols have in common: how they are read, their errors, how OpenAI counts. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols.shapes import InputDetails, OutputDetails
from lockgate.results import Usage


def document(body: bytes) -> dict[str, Any]:
    """The JSON object, or an empty one where there is none."""
    try:
        decoded = msgspec.json.decode(body)
    except f.UNREADABLE:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def said(error: Any) -> str | None:
    """The words of an error object inside an answer; None when there is none."""
    if error is None:
        return None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:500] if message else "an error without a message"


def counted(
    input_tokens: int, output_tokens: int, input_details: InputDetails | None, output_details: OutputDetails | None
) -> Usage | None:
    """What OpenAI's protocols say was used; None when it cannot be."""
    if input_tokens < 0 or output_tokens < 0:
        return None
    cached = (input_details.cached_tokens or 0) if input_details is not None else 0
    reasoning = (output_details.reasoning_tokens or 0) if output_details is not None else 0
    if cached or reasoning:
        cached, reasoning = min(max(0, cached), input_tokens), max(0, reasoning)
    return Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached, reasoning_tokens=reasoning
    )
