"""Hints to providers that can keep the start of a prompt, so that the next call with the same start costs less. Pure.

OpenAI keeps prefixes by itself, and finds them better with a key that calls with the same start share. Anthropic keeps
what is marked: here the system prompt and the tools, where they are long enough for it to count (1,024 tokens).
"""

from __future__ import annotations

import msgspec

from lockgate.gateway.protocols import fields
from lockgate.gateway.protocols.messages import with_prefix_marked
from lockgate.gateway.protocols.model import Request

OPENAI = "api.openai.com"
_KEY = "prompt_cache_key"


def hinted(request: Request, kind: str, host: str, key: str) -> Request:
    """The request with the hint its provider understands, or as it is. ``key`` names what prompts have in common."""
    name = request.dialect.name
    if kind == "anthropic" and name == "messages":
        if any(b'"cache_control"' in bytes(raw) for raw in request.fields.values()):
            return request  # the caller knows better
        changed = with_prefix_marked(request.decoded("system"), request.decoded("tools"))
        return request.replaced(**changed) if changed else request
    if kind == "anthropic" and name == "chat":
        return msgspec.structs.replace(request, keeps_prefix=True)  # what is translated is marked then
    if host == OPENAI and name in ("chat", "responses") and not is_keyed(request):
        return request.replaced(**{_KEY: key[:64]})
    return request


def is_keyed(request: Request) -> bool:
    """Whether it carries OpenAI's key, its caller's own or one that :func:`hinted` added."""
    return _KEY in request.fields


def without_key(request: Request) -> Request:
    """The request without OpenAI's key."""
    return request.dialect.read(fields.encode({name: raw for name, raw in request.fields.items() if name != _KEY}))
