"""What a prompt weighs and a call costs, before anything is run. Pure; an estimate, and named so."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from lockgate.versions.model import AgentVersion, ModelRef

_PIECE = re.compile(r"[A-Za-z]+|[0-9]{1,3}|[^\sA-Za-z0-9]|\n")

Cost = Callable[[ModelRef, int, int], float | None]
"""``(model, input tokens, output tokens)`` → USD, None when no price is known."""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """What one call sends before the user says a word, and what it costs with the longest answer (USD)."""

    prompt_tokens: int
    tool_tokens: int
    max_usd: float | None


def tokens(text: str) -> int:
    """About how many tokens a text is: pieces of words, digits and marks, as byte-pair tokenizers split English.

    >>> tokens("You are a refund clerk."), tokens("")
    (6, 0)
    """
    count = 0
    for piece in _PIECE.findall(text):
        count += -(-len(piece) // 8) if piece.isalpha() and piece.isascii() else 1
    return count


def weigh(version: AgentVersion, cost: Cost) -> Weight:
    """The weight of the version's first call on its own model."""
    prompt = tokens(version.system_prompt)
    tools = sum(
        tokens(f"{tool.name} {tool.description} {msgspec.json.encode(tool.input).decode()}") for tool in version.tools
    )
    return Weight(
        prompt_tokens=prompt, tool_tokens=tools, max_usd=cost(version.model, prompt + tools, version.model.max_tokens)
    )
