"""Hints to providers that can keep the start of a prompt, so that the next call with the same start costs less. Pure.

OpenAI keeps prefixes by itself, and finds them better with a key that calls with the same start share. Anthropic keeps
what is marked: here the system prompt and the tools, where they are long enough for it to count (1,024 tokens).
"""

from __future__ import annotations

from typing import Any

from lockgate.gateway.protocols.model import Request

LONG_ENOUGH = 4096
"""Characters below which no provider keeps a prefix."""
_MARK = {"type": "ephemeral"}
_KEYED = {"prompt_cache_key"}


def hinted(request: Request, kind: str, host: str, key: str) -> Request:
    """The request with the hint its provider understands, or as it is. ``key`` names what prompts have in common."""
    name = request.dialect.name
    if kind == "anthropic" and name == "messages":
        return _marked(request)
    if host == "api.openai.com" and name in ("chat", "responses") and not _KEYED & request.fields.keys():
        return request.replaced(prompt_cache_key=key[:64])
    return request


def _marked(request: Request) -> Request:
    if any(b'"cache_control"' in bytes(raw) for raw in request.fields.values()):
        return request  # the caller knows better
    system = request.decoded("system")
    tools = request.decoded("tools")
    length = len(str(system or "")) + len(str(tools or ""))
    if length < LONG_ENOUGH:
        return request
    if isinstance(system, str) and system:
        return request.replaced(system=[{"type": "text", "text": system, "cache_control": _MARK}])
    if isinstance(system, list) and system and isinstance(system[-1], dict):
        return request.replaced(system=[*system[:-1], {**system[-1], "cache_control": _MARK}])
    if isinstance(tools, list) and tools and isinstance(tools[-1], dict):
        last: dict[str, Any] = {**tools[-1], "cache_control": _MARK}
        return request.replaced(tools=[*tools[:-1], last])
    return request
