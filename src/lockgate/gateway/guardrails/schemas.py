"""Answers that have to fit a schema: the one the request names, or the guardrail's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from lockgate.errors import UpstreamError
from lockgate.gateway.guardrails.answers import decoded
from lockgate.gateway.protocols import fields
from lockgate.gateway.protocols.fields import UNREADABLE
from lockgate.gateway.protocols.model import Request
from lockgate.tools.contracts import schema_check

_FIELDS = {"chat": "response_format", "responses": "text", "messages": "output_config"}
"""Where a request of each protocol names its schema."""
_SHORT = 16_384
"""Bytes of such a field up to which what it says is kept: callers send the same schema again and again."""
MESSAGES_UNBOUND = ("tool_use", "max_tokens", "refusal", "pause_turn", "model_context_window_exceeded")
"""Why an answer of Anthropic's ended that no schema binds."""

_decode = msgspec.json.Decoder().decode


class Asked(NamedTuple):
    """The JSON Schema that a request asks its answer to fit; an empty one for any JSON."""

    schema: dict[str, Any]
    check: Callable[[Any], str | None] | None  # None: any value is well

    def problem_of(self, text: str) -> str | None:
        """How a text does not fit, or None."""
        try:
            value = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as wrong:
            return f"it is not JSON ({wrong})"
        return None if self.check is None else self.check(value)


def asked_schema(request: Request) -> Asked | None:
    """What a request asks its answer to fit; None when it asks for nothing."""
    name = _FIELDS.get(request.dialect.name)
    if name is None or (raw := request.fields.get(name)) is None:
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
    return None if schema is None else asked_of(schema)


def asked_of(schema: dict[str, Any]) -> Asked:
    """What a schema asks of an answer."""
    if not schema:
        return Asked({}, None)
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


def said_texts(dialect: str, body: bytes) -> list[str]:
    """The text of each choice that a schema binds: not of one that calls tools, refuses or was cut off.

    UpstreamError for an answer that has not the shape of its protocol: nobody could say whether it fits.
    """
    decode, kind = _ANSWERS[dialect]
    try:
        return decode(body).said()
    except UNREADABLE:
        pass
    try:
        return msgspec.convert(decoded(body), kind).said()
    except msgspec.ValidationError as wrong:
        raise UpstreamError(f"the provider's answer cannot be checked: {wrong}", sent=True) from wrong


class _Message(msgspec.Struct):
    content: Any = None
    tool_calls: Any = None
    refusal: Any = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: Any = None


class _ChatAnswer(msgspec.Struct):
    choices: list[_Choice] | None = None

    def said(self) -> list[str]:
        found = []
        for choice in self.choices or ():
            message = choice.message
            if message is None or message.tool_calls or message.refusal or choice.finish_reason == "length":
                continue
            if isinstance(message.content, str):
                found.append(message.content)
        return found


class _Block(msgspec.Struct):
    type: Any = None
    text: Any = None


class _MessagesAnswer(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: Any = None

    def said(self) -> list[str]:
        if self.stop_reason in MESSAGES_UNBOUND:
            return []
        return _joined(block.text for block in self.content or () if block.type == "text")


class _Item(msgspec.Struct):
    type: Any = None
    content: Any = None  # of a list of parts in a message; there are ever more kinds of items


class _ResponsesAnswer(msgspec.Struct):
    output: list[_Item] | None = None
    status: Any = None

    def said(self) -> list[str]:
        output = self.output or ()
        if self.status == "incomplete" or any("call" in str(item.type) for item in output):
            return []
        parts = [part for item in output if isinstance(item.content, list) for part in item.content]
        return _joined(part.get("text") for part in parts if isinstance(part, dict))


_Answer = _ChatAnswer | _MessagesAnswer | _ResponsesAnswer
_KINDS: dict[str, type[_Answer]] = {"chat": _ChatAnswer, "messages": _MessagesAnswer, "responses": _ResponsesAnswer}
_ANSWERS = {dialect: (msgspec.json.Decoder(kind).decode, kind) for dialect, kind in _KINDS.items()}


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
