"""OpenAI chat completions. Pure.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols.answers import counted, said
from lockgate.gateway.protocols.dialect import Dialect, Passage, Place
from lockgate.gateway.protocols.model import Outcome, Request, Text
from lockgate.gateway.protocols.shapes import ChatAnswer, ChatUsage, Models, Tool
from lockgate.gateway.protocols.sse import Events
from lockgate.results import Usage

_REFERENCES = (b'"image_url"', b'"input_image"', b'"file"', b'"input_audio"', b'"audio_url"', b'"video_url"')
_REASONING = re.compile(r"(o\d|gpt-[5-9])")
_BOUNDS = ("max_completion_tokens", "max_tokens")
_BOUNDED_TOOLS = frozenset(("function", "custom"))
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""A tool's type that may stand in a header, and in a message."""
_LOOKED_AT = frozenset(("web_search_options", "prediction", "service_tier", "tools"))


_tools = msgspec.json.Decoder(list[Tool] | None).decode


class Chat(Dialect):
    """``POST /v1/chat/completions``."""

    name = "chat"
    operation = "chat"
    path = "/v1/chat/completions"

    def read(self, body: bytes) -> Request:
        fields = f.take_apart(body, "one chat-completions request")
        messages = fields.get("messages")
        if messages is None:
            raise InputError("'messages' is missing", remedy="send a list of messages")
        stream_options = "stream_options" in fields and f.field(fields, "stream_options", dict[str, Any] | None)
        limits = [limit for name in _BOUNDS if name in fields and (limit := f.count(fields, name)) is not None]
        return Request(
            dialect=self,
            fields=fields,
            model=f.model_name(fields),
            size=len(body),
            stream=f.flag(fields, "stream"),
            wants_usage=bool(stream_options and stream_options.get("include_usage")),
            max_tokens=max(limits) if limits else None,
            n=(f.count(fields, "n") or 1) if "n" in fields else 1,
            references=f.mentions(messages, _REFERENCES),
            unbounded=_unbounded(fields),
        )

    def texts(self, request: Request) -> list[Text]:
        return message_texts(request.decoded("messages"), ("messages",))


def message_texts(messages: Any, place: Place) -> list[Text]:
    """The texts of a list of messages, whose content is a string or a list of parts."""
    found: list[Text] = []
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue
        said_by = str(message.get("role") or "user")
        role = {"developer": "system", "function": "tool"}.get(said_by, said_by)
        content = message.get("content")
        if isinstance(content, str):
            found.append(Text((*place, index, "content"), role, content))
        for number, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                found.append(Text((*place, index, "content", number, "text"), role, part["text"]))
    return found


def _unbounded(fields: f.Fields) -> str | None:
    """A parameter by which the call may cost more than its bytes and its output say."""
    if _LOOKED_AT.isdisjoint(fields):
        return None
    for name in ("web_search_options", "prediction"):
        if f.is_given(fields, name):
            return name
    if f.anything(fields, "service_tier") == "priority":
        return "service_tier"
    return unbounded_tools(fields)


def unbounded_tools(fields: f.Fields) -> str | None:
    """``tools`` when the provider runs some of them itself, as often as it likes; with the first of these."""
    if "tools" not in fields:
        return None
    try:
        kinds = [tool.type for tool in _tools(fields["tools"]) or ()]
    except f.UNREADABLE:
        return "tools"
    first = next((kind for kind in kinds if kind not in _BOUNDED_TOOLS), None)
    if first is None:
        return None
    return f"tools: {first}" if _KIND.fullmatch(first) else "tools"


# --- what the upstream gets, and gives ------------------------------------------------------------------------


def bound_name(model: str) -> str:
    """The parameter that bounds the output of this model."""
    return "max_completion_tokens" if _REASONING.match(model) else "max_tokens"


class ChatPassage(Passage):
    """To an upstream that speaks chat completions too."""

    path = "/chat/completions"

    def forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        fields = dict(request.fields)
        fields["model"] = f.raw(model)
        if request.max_tokens is None:
            fields.pop("max_completion_tokens", None)
            fields[bound_name(model)] = msgspec.Raw(b"%d" % max_tokens)
        if request.stream and not request.wants_usage:
            options = f.field(fields, "stream_options", dict[str, msgspec.Raw] | None) or {}
            options["include_usage"] = f.TRUE
            fields["stream_options"] = f.raw(options)
        return f.encode(fields)

    def outcome(self, body: bytes) -> Outcome:
        return read_answer(body)

    def tap(self, request: Request) -> ChatTap:
        return ChatTap(hide_usage=not request.wants_usage)


_answer = msgspec.json.Decoder(ChatAnswer).decode


def read_answer(body: bytes) -> Outcome:
    """The outcome of a whole answer; empty when it is not what it should be."""
    try:
        answer = _answer(body)
    except f.UNREADABLE:
        return Outcome()
    finish_reasons = []
    for choice in answer.choices:
        if choice.finish_reason:
            finish_reasons.append(choice.finish_reason)  # a comprehension would be a call of its own
    return Outcome(
        usage=usage_of(answer.usage),
        id=answer.id,
        model=answer.model,
        fingerprint=answer.system_fingerprint,
        finish_reasons=finish_reasons,
        error=said(answer.error),
    )


def usage_of(usage: ChatUsage | None) -> Usage | None:
    if usage is None:
        return None
    return counted(
        usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details, usage.completion_tokens_details
    )


_NULL_USAGE = re.compile(rb',\s*"usage":\s*null|"usage":\s*null\s*,\s*')
_FINISHED = re.compile(rb'"finish_reason":\s*"([a-z_]+)"')
_OUTPUT = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|arguments|name|data)":\s*"[^"]')


class ChatTap:
    """Reads the outcome out of a stream as it passes.

    A client that asked for usage gets every byte as it came. For one that did not, the event that Lockgate asked
    for is left out, and so are the nulls that announce it.
    """

    def __init__(self, *, hide_usage: bool) -> None:
        self.outcome = Outcome()
        self.begun = False
        self._hide = hide_usage
        self._events = Events()

    def feed(self, chunk: bytes) -> bytes:
        """Take what came; returns what to pass on now (maybe nothing yet)."""
        passed: list[bytes] = []
        for one in self._events.feed(chunk):
            if self.read(one) and self._hide:
                continue
            if self._hide:
                passed.append(_NULL_USAGE.sub(b"", one) if b'"usage":' in one else one)
        return b"".join(passed) if self._hide else chunk

    def finish(self) -> bytes:
        """What is left to pass on when the stream has ended without a final blank line."""
        rest = self._events.finish()
        only_usage = bool(rest) and self.read(rest)
        return rest if self._hide and not only_usage else b""

    def read(self, event: bytes) -> bool:
        """Note what the event tells; True when it carries usage and nothing else."""
        outcome = self.outcome
        if not self.begun and _OUTPUT.search(event):
            self.begun = True
        finished = _FINISHED.search(event) if b'"finish_reason":' in event else None
        if finished:
            outcome.finish_reasons = [*outcome.finish_reasons, finished[1].decode()]
        if outcome.id is None or b'"error"' in event or (b'"usage"' in event and b'"usage":null' not in event):
            at = event.find(b"data:")
            if at < 0:
                return False
            try:
                answer = _answer(event[at + 5 :].strip())
            except f.UNREADABLE:
                return False
            outcome.id = outcome.id or answer.id
            outcome.model = outcome.model or answer.model
            outcome.fingerprint = outcome.fingerprint or answer.system_fingerprint
            outcome.error = outcome.error or said(answer.error)
            if answer.usage is not None:
                outcome.usage = usage_of(answer.usage) or outcome.usage
                return not answer.choices
        return False


def read_models(body: bytes) -> list[str]:
    """The names in an answer to ``GET /models`` (OpenAI's and Anthropic's); none when it is not what it should be."""
    try:
        return [model.id for model in msgspec.json.decode(body, type=Models).data]
    except f.UNREADABLE:
        return []
