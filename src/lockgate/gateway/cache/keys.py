"""What makes two requests the same. Pure.

A key covers everything that can change an answer or what may be told to whom: the whole request but for what the
protocols say does not reach the model, the provider and its name for the model, the version (effective digest), the
tenant with its guardrails, the environment. So a key is never shared by two tenants, and a new version begins anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from lockgate.gateway.protocols.model import Request

UNHEARD = frozenset(("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"))
"""Fields that providers say are for their records only."""
_encode = msgspec.json.Encoder(order="sorted").encode
_WORD_WITH_DIGIT = re.compile(r"\w*\d[\w.,:/-]*")
_TURNS = re.compile(
    r"\b(?:not|no|never|without|except|cannot|can't|don't|doesn't|isn't|won't|nicht|kein\w*|ohne|pas|sans|jamais|nunca|sin)\b"
)


class Scope(NamedTuple):
    """Whose answers they are."""

    tenant: str
    environment: str
    digest: str  # effective digest; empty for calls that belong to no agent
    policy: str  # what the tenant's guardrails say
    tags: tuple[str, ...] = ()  # by which a version chooses the model that answers


def key_of(request: Request, provider: str, model: str, scope: Scope) -> bytes:
    """32 bytes: the same for the same request, whatever the order of its keys or its blanks."""
    fields = {name: request.decoded(name) for name in request.fields if name not in UNHEARD and name != "model"}
    return _digest([request.dialect.name, provider, model, tuple(scope), fields])


def question_of(request: Request, provider: str, model: str, scope: Scope) -> tuple[bytes, str] | None:
    """For answers to questions that mean the same: the key of all but the last message's text, and that text.

    None where the last message is no plain question of a user.
    """
    if request.dialect.name not in ("chat", "messages"):
        return None
    messages = request.decoded("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "user" or not isinstance(last.get("content"), str):
        return None
    fields = {
        name: request.decoded(name)
        for name in request.fields
        if name not in UNHEARD and name not in ("model", "messages")
    }
    rest = [*messages[:-1], {**last, "content": None}]
    return _digest([request.dialect.name, provider, model, tuple(scope), fields, rest]), last["content"]


def _digest(value: Any) -> bytes:
    return hashlib.sha256(_encode(value)).digest()


def sure(one: str, other: str) -> bool:
    """Whether two questions agree in what their likeness does not show: numbers and names with digits, and negations.

    >>> sure("where is order 4711?", "where is my order 4711"), sure("where is order 4711?", "where is order 4712?")
    (True, False)
    """
    return _facts(one) == _facts(other)


def _facts(text: str) -> tuple[list[str], list[str]]:
    lowered = text.casefold()
    return (
        sorted(found.strip(".,:/-") for found in _WORD_WITH_DIGIT.findall(lowered)),
        sorted(_TURNS.findall(lowered)),
    )


def storable(request: Request, body: Mapping[str, Any] | None) -> bool:
    """Whether an answer may be given again: not one that asks for a tool to be called, or that was withheld."""
    if body is None:
        return True
    for choice in body.get("choices") or ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict) and (message.get("tool_calls") or message.get("function_call")):
            return False
        if isinstance(choice, dict) and choice.get("finish_reason") in (
            "content_filter",
            "tool_calls",
            "function_call",
        ):
            return False
    blocks = body.get("content")
    if isinstance(blocks, list) and any(
        isinstance(block, dict) and "use" in str(block.get("type")) for block in blocks
    ):
        return False
    output = body.get("output")
    if isinstance(output, list) and any(isinstance(item, dict) and "call" in str(item.get("type")) for item in output):
        return False
    return not body.get("error")


_STREAMED_CALL = re.compile(
    rb'"tool_calls":\s*\[\s*\{|"function_call":\s*\{|"type":\s*"(?:tool_use|server_tool_use|[a-z_]*call)"'
    rb'|"finish_reason":\s*"(?:content_filter|tool_calls)"|"error":\s*\{'
)


def storable_stream(body: bytes) -> bool:
    """As :func:`storable`, for the bytes of a stream: also not one that ended early."""
    if _STREAMED_CALL.search(body) is not None:
        return False
    ending = body[-400:]
    return b"[DONE]" in ending or b"message_stop" in ending or b"response.completed" in body[-200_000:]
