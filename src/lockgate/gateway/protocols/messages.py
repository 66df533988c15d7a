"""Anthropic messages, and the counting of their tokens. Pure.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lockgate.errors import InputError, LockgateError
from lockgate.gateway.problems import Response, anthropic_error
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols import sse
from lockgate.gateway.protocols.answers import document, said
from lockgate.gateway.protocols.chat import message_texts
from lockgate.gateway.protocols.dialect import Dialect, Listener, Passage, Place
from lockgate.gateway.protocols.model import Outcome, Request, Tap, Text
from lockgate.results import Usage

LONG_ENOUGH = 4096
"""Characters of a prompt below which no provider keeps it."""
_MARK = {"type": "ephemeral"}
_REFERENCES = (b'"image"', b'"document"', b'"file"', b'"search_result"')
_CLIENTS_TOOLS = re.compile(r"custom$|bash_|text_editor_|computer_|memory_")
"""Tools that the client runs; any other type is run by the provider, as often as it likes."""
_HEADERS = ("anthropic-version", "anthropic-beta")


class _Tool(msgspec.Struct):
    type: str | None = None


_tools = msgspec.json.Decoder(list[_Tool] | None).decode


class Messages(Dialect):
    """``POST /v1/messages``."""

    name = "messages"
    operation = "chat"
    path = "/v1/messages"

    def read(self, body: bytes) -> Request:
        fields = f.take_apart(body, "one request of the messages API")
        if "messages" not in fields:
            raise InputError("'messages' is missing", remedy="send a list of messages")
        max_tokens = f.count(fields, "max_tokens")
        if max_tokens is None and self.has_output:
            raise InputError("'max_tokens' is missing", remedy="say how long the answer may be")
        return Request(
            dialect=self,
            fields=fields,
            model=f.model_name(fields),
            size=len(body),
            stream=f.flag(fields, "stream"),
            wants_usage=True,
            max_tokens=max_tokens,
            references=f.mentions(fields["messages"], _REFERENCES),
            unbounded=_unbounded(fields),
        )

    def failure(self, error: LockgateError, details: dict[str, Any] | None = None) -> Response:
        return anthropic_error(error, request_id="", details=details)

    def error_event(self, error: LockgateError) -> bytes:
        return sse.event(anthropic_error(error, request_id="")[2], b"error")

    def texts(self, request: Request) -> list[Text]:
        found: list[Text] = []
        system, messages = request.decoded("system"), request.decoded("messages")
        if isinstance(system, str):
            found.append(Text(("system",), "system", system))
        for number, part in enumerate(system if isinstance(system, list) else ()):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                found.append(Text(("system", number, "text"), "system", part["text"]))
        found += message_texts(messages, ("messages",))
        for index, message in enumerate(messages if isinstance(messages, list) else ()):
            content = message.get("content") if isinstance(message, dict) else None
            for number, part in enumerate(content if isinstance(content, list) else ()):
                if isinstance(part, dict):
                    found += _brought(part, ("messages", index, "content", number))
        return found


class CountTokens(Messages):
    """``POST /v1/messages/count_tokens``: costs nothing."""

    name = "count_tokens"
    operation = "count_tokens"
    path = "/v1/messages/count_tokens"
    has_output = False
    is_free = True


def _brought(part: dict[str, Any], place: Place) -> list[Text]:
    """The texts of a block that the user did not write: a tool's result, a search result, a document."""
    source = part.get("source")
    match part.get("type"):
        case "tool_result" | "search_result":
            found = _result_texts(part.get("content"), (*place, "content"))
            for number, one in enumerate(part["content"] if isinstance(part.get("content"), list) else ()):
                if isinstance(one, dict) and one.get("type") in ("search_result", "document"):
                    found += _brought(one, (*place, "content", number))
            return found
        case "document" if isinstance(source, dict) and source.get("type") == "text":
            data = source.get("data")
            return [Text((*place, "source", "data"), "tool", data)] if isinstance(data, str) else []
        case "document" if isinstance(source, dict) and source.get("type") == "content":
            return _result_texts(source.get("content"), (*place, "source", "content"))
        case _:
            return []


def _result_texts(content: Any, place: Place) -> list[Text]:
    if isinstance(content, str):
        return [Text(place, "tool", content)]
    return [
        Text((*place, number, "text"), "tool", part["text"])
        for number, part in enumerate(content if isinstance(content, list) else ())
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]


def with_prefix_marked(system: Any, tools: Any) -> dict[str, Any]:
    """``system`` or ``tools`` with the mark to keep the prompt up to its end; empty where it is too short for that."""
    if len(str(system or "")) + len(str(tools or "")) < LONG_ENOUGH:
        return {}
    if isinstance(system, str) and system:
        return {"system": [{"type": "text", "text": system, "cache_control": _MARK}]}
    for name, value in (("system", system), ("tools", tools)):
        if isinstance(value, list) and value and isinstance(value[-1], dict):
            return {name: [*value[:-1], {**value[-1], "cache_control": _MARK}]}
    return {}


def _unbounded(fields: f.Fields) -> str | None:
    for name in ("mcp_servers", "container"):
        if name in fields:
            return name
    if "tools" in fields:
        try:
            if any(tool.type and not _CLIENTS_TOOLS.match(tool.type) for tool in _tools(fields["tools"]) or ()):
                return "tools"
        except f.UNREADABLE:
            return "tools"
    if any(name in fields and b'"1h"' in f.plain(fields[name]) for name in ("messages", "system", "tools")):
        return "cache_control.ttl"  # writing for an hour costs twice the input, which no price table says
    return None


# --- what the upstream gets, and gives ------------------------------------------------------------------------


class MessagesPassage(Passage):
    """To an upstream that speaks the messages API too."""

    path = "/messages"
    headers = _HEADERS

    def outcome(self, body: bytes) -> Outcome:
        try:
            answer = _answer(body)
        except f.UNREADABLE:
            return Outcome()
        return Outcome(
            usage=usage_of(answer.usage),
            id=answer.id,
            model=answer.model,
            finish_reasons=[answer.stop_reason] if answer.stop_reason else [],
            error=said(answer.error),
        )

    def tap(self, request: Request) -> Tap:
        return MessagesTap()


class CountTokensPassage(MessagesPassage):
    """To Anthropic's own counter."""

    path = "/messages/count_tokens"

    def outcome(self, body: bytes) -> Outcome:
        told = document(body)
        if "input_tokens" not in told:
            return Outcome(error=said(told.get("error")))
        return Outcome(usage=Usage())


class AnthropicUsage(msgspec.Struct):
    """Tokens as Anthropic counts them: what was read from or written to its cache is not in ``input_tokens``."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: AnthropicUsage | None = None
    error: Any = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Answer | None = None
    delta: _Delta | None = None
    usage: AnthropicUsage | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer).decode
_event = msgspec.json.Decoder(_Event).decode


def usage_of(usage: AnthropicUsage | None) -> Usage | None:
    """As Lockgate counts: everything that went in is input, and what was read from a cache is cached."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, written = max(0, usage.cache_read_input_tokens or 0), max(0, usage.cache_creation_input_tokens or 0)
    if usage.input_tokens < 0 or usage.output_tokens < 0:
        return None
    return Usage(
        input_tokens=usage.input_tokens + read + written,
        output_tokens=usage.output_tokens,
        cached_tokens=read,
        cache_write_tokens=written,
    )


class MessagesTap(Listener):
    """What was used is known when the last ``message_delta`` has come, not before."""

    def __init__(self) -> None:
        super().__init__()
        self._counted = AnthropicUsage()

    def read(self, event: bytes) -> None:
        if b"content_block" in event:
            self.begun = self.begun or b"_delta" in event or b"tool_use" in event
            return
        if b"message_start" not in event and b"message_delta" not in event and b'"error"' not in event:
            return
        try:
            told = _event(sse.data_of(event))
        except f.UNREADABLE:
            return
        known = self.outcome
        if told.type == "message_start" and told.message is not None:
            known.id, known.model = told.message.id, told.message.model
            self._count(told.message.usage)
        elif told.type == "message_delta":
            self._count(told.usage)
            if told.delta is not None and told.delta.stop_reason:
                known.finish_reasons = [told.delta.stop_reason]
            known.usage = usage_of(self._counted)
        elif told.type == "error":
            known.error = said(told.error) or "an error without a message"

    def _count(self, told: AnthropicUsage | None) -> None:
        """Each count is the total so far."""
        for name in AnthropicUsage.__struct_fields__ if told is not None else ():
            value = getattr(told, name)
            if value is not None:
                setattr(self._counted, name, value)
