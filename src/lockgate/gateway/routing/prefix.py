"""Hints to providers that can keep the start of a prompt, so that the next call with the same start costs less. Pure.

OpenAI keeps prefixes by itself, and finds them better with a key that calls with the same start share. Anthropic keeps
what is marked: here the system prompt and the tools, where they are long enough for it to count (1,024 tokens).
"""

from __future__ import annotations

import msgspec

from lockgate.gateway.protocols.messages import with_prefix_marked
from lockgate.gateway.protocols.model import Request

_KEYED = {"prompt_cache_key"}


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
    if host == "api.openai.com" and name in ("chat", "responses") and not _KEYED & request.fields.keys():
        return request.replaced(prompt_cache_key=key[:64])
    return request
