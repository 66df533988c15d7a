"""Answers that have to fit a schema: the one the request names, or the guardrail's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from lockgate.gateway.protocols import fields
from lockgate.gateway.protocols.model import Request
from lockgate.tools.contracts import schema_check

_FIELDS = {"chat": "response_format", "responses": "text", "messages": "output_config"}
"""Where a request of each protocol names its schema."""
_SHORT = 16_384
"""Bytes of such a field up to which what it says is kept: callers send the same schema again and again."""
MESSAGES_UNBOUND = ("tool_use", "max_tokens", "refusal", "pause_turn", "model_context_window_exceeded")
"""Why an answer of Anthropic's ended that no schema binds."""


class Asked(NamedTuple):
    """The JSON Schema that a request asks its answer to fit; an empty one for any JSON."""

    schema: dict[str, Any]
    check: Callable[[Any], str | None] | None  # None: any value is well

    def problem_of(self, text: str) -> str | None:
        """How a text does not fit, or None."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as wrong:
            return f"it is not JSON ({wrong})"
        return None if self.check is None else self.check(value)


def asked_schema(request: Request) -> Asked | None:
    """What a request asks its answer to fit; None when it asks for nothing."""
    name = _FIELDS.get(request.dialect.name)
    raw = request.fields.get(name) if name is not None else None
    if name is None or raw is None:
        return None
    written = bytes(raw)
    if len(written) > _SHORT:
        return _asked_by(name, request.decoded(name))
    return _known(name, written)


@lru_cache(maxsize=512)
def _known(name: str, written: bytes) -> Asked | None:
    return _asked_by(name, fields.anything({name: msgspec.Raw(written)}, name))


def _asked_by(name: str, value: Any) -> Asked | None:
    schema = _schema_of(name, value)
    if not schema:
        return None if schema is None else Asked({}, None)
    try:
        return Asked(schema, schema_check(schema))
    except ValueError:
        return Asked(schema, None)  # a schema that is none: the provider's to refuse


def _schema_of(name: str, value: Any) -> dict[str, Any] | None:
    within = name != "response_format"
    form = value.get("format") if within and isinstance(value, dict) else value
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_object":
        return {}
    wrapped = form if within else form.get("json_schema")
    schema = wrapped.get("schema") if form.get("type") == "json_schema" and isinstance(wrapped, dict) else None
    return schema if isinstance(schema, dict) else None


def said_texts(dialect: str, answer: Any) -> list[str]:
    """The text of each choice that a schema binds: not of one that calls tools, refuses or was cut off."""
    if not isinstance(answer, dict):
        return []
    if dialect == "chat":
        choices = answer.get("choices")
        said = (_said_in(choice) for choice in (choices if isinstance(choices, list) else ()))
        return [text for text in said if text is not None]
    if dialect == "messages":
        if answer.get("stop_reason") in MESSAGES_UNBOUND or not isinstance(answer.get("content"), list):
            return []
        blocks = [block for block in answer["content"] if isinstance(block, dict) and block.get("type") == "text"]
        return _joined(block.get("text") for block in blocks)
    output = answer.get("output")
    if not isinstance(output, list) or answer.get("status") == "incomplete":
        return []
    if any(isinstance(item, dict) and "call" in str(item.get("type")) for item in output):
        return []
    return _joined(
        part.get("text")
        for item in output
        if isinstance(item, dict) and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict)
    )


def _said_in(choice: Any) -> str | None:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or message.get("tool_calls") or message.get("refusal"):
        return None
    content = message.get("content")
    return content if isinstance(content, str) and choice.get("finish_reason") != "length" else None


def _joined(texts: Iterable[Any]) -> list[str]:
    said = [text for text in texts if isinstance(text, str)]
    return ["".join(said)] if said else []


def repair(request: Request, said: str, problem: str, schema: dict[str, Any]) -> Request:
    """The request again, with the answer and what is wrong with it."""
    form = f" that fits this schema: {msgspec.json.encode(schema).decode()}" if schema else ""
    told = f"Your answer is not valid: {problem}. Answer again with only one JSON value{form}"
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": told}]
    if request.dialect.name in ("chat", "messages"):
        return request.replaced(messages=[*request.decoded("messages"), *turns])
    given = request.decoded("input")
    before = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or [])
    return request.replaced(input=[*before, *turns])
