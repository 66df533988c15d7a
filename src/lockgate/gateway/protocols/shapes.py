"""What is read of OpenAI's requests and answers, as msgspec decodes it; it skips the rest.

Apart from what works on them, because that is compiled, and msgspec's classes cannot be
(docs/decisions/compiled-calls.md).
"""

from __future__ import annotations

from typing import Any

import msgspec


class Tool(msgspec.Struct):
    """A tool that a request offers."""

    type: str = "function"


class InputDetails(msgspec.Struct):
    """Of the tokens that went in."""

    cached_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """Of the tokens that came out."""

    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    """What a chat completion used."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class ChatChoice(msgspec.Struct):
    """One of the answers to a request."""

    finish_reason: str | None = None


class ChatAnswer(msgspec.Struct):
    """A chat completion, or an event of its stream."""

    id: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: ChatUsage | None = None
    choices: list[ChatChoice] = []
    error: Any = None


class Model(msgspec.Struct):
    """A model that a provider has."""

    id: str


class Models(msgspec.Struct):
    """All that it has."""

    data: list[Model] = []
