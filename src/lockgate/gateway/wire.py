"""Chat completions on the wire: what is read, what is changed, what passes as it is. Pure.

A request is taken apart at its top level only. What Lockgate uses is decoded, the rest stays raw, and what is
forwarded is the object encoded anew: a key that stood twice (``model`` once for the policy, once for the bill)
stands there once, with the value that was checked.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lockgate.errors import InputError, UpstreamError
from lockgate.results import Usage

MAX_MODEL = 256
"""Characters of a model's name."""
MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one server-sent event that are kept while waiting for its end."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_TRUE = msgspec.Raw(b"true")
_REFERENCES = (b'"image_url"', b'"input_image"', b'"file"', b'"input_audio"', b'"video_url"')
_REASONING = re.compile(r"(o\d|gpt-[5-9])")


class ChatCall(msgspec.Struct, kw_only=True):
    """A chat-completions request: the fields in use, and all of them raw."""

    fields: dict[str, msgspec.Raw]
    model: str
    stream: bool
    wants_usage: bool
    max_tokens: int | None
    n: int
    size: int  # bytes

    def string(self, name: str) -> str | None:
        """A further field that has to be a string or absent."""
        value: str | None = _field(self.fields, name, str | None, None)
        return value

    @property
    def references(self) -> int:
        """How many images, files or sounds the messages may carry: what their bytes do not bound."""
        messages = bytes(self.fields["messages"])
        return sum(messages.count(kind) for kind in _REFERENCES)


def read_chat(body: bytes) -> ChatCall:
    """Take a request apart; :class:`InputError` when a field in use is missing or of the wrong type."""
    try:
        fields = _fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise InputError(f"the body is no JSON object: {wrong}", remedy="send one chat-completions request") from wrong
    if "messages" not in fields:
        raise InputError("'messages' is missing", remedy="send a list of messages")
    stream_options = _field(fields, "stream_options", dict[str, Any] | None, None)
    limits = [
        limit
        for name in ("max_completion_tokens", "max_tokens")
        if (limit := _field(fields, name, int | None, None)) is not None
    ]
    n = _field(fields, "n", int | None, None)
    model: str = _field(fields, "model", str, ...)
    if len(model) > MAX_MODEL:
        raise InputError(f"'model' has {len(model)} characters", remedy=f"use at most {MAX_MODEL}")
    for name, value in (("max_tokens", min(limits, default=1)), ("n", 1 if n is None else n)):
        if value < 1:
            raise InputError(f"{name!r} is {value!r}", remedy="it is at least 1")
    return ChatCall(
        fields=fields,
        model=model,
        stream=bool(_field(fields, "stream", bool | None, None)),
        wants_usage=bool(stream_options and stream_options.get("include_usage")),
        max_tokens=max(limits) if limits else None,
        n=1 if n is None else n,
        size=len(body),
    )


def forwarded(call: ChatCall, model: str, max_tokens: int) -> bytes:
    """The request as the provider gets it: its own name for the model, a bound on output, usage asked for."""
    fields = dict(call.fields)
    fields["model"] = msgspec.Raw(_encode(model))
    if call.max_tokens is None:
        name = "max_completion_tokens" if _REASONING.match(model) else "max_tokens"
        fields.pop("max_completion_tokens", None)
        fields[name] = msgspec.Raw(b"%d" % max_tokens)
    if call.stream and not call.wants_usage:
        options = _field(fields, "stream_options", dict[str, msgspec.Raw] | None, None) or {}
        options["include_usage"] = _TRUE
        fields["stream_options"] = msgspec.Raw(_encode(options))
    return _encode(fields)


def _field(fields: dict[str, msgspec.Raw], name: str, kind: Any, default: Any) -> Any:
    raw = fields.get(name)
    if raw is None:
        if default is ...:
            raise InputError(f"{name!r} is missing", remedy="name it in the request")
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as wrong:
        shown = bytes(raw)[:80].decode("utf-8", "replace")
        raise InputError(f"{name!r} is {shown!r}: {wrong}") from wrong


# --- answers --------------------------------------------------------------------------------------------------


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _ReasoningTokens(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None
    completion_tokens_details: _ReasoningTokens | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    usage: _Usage | None = None
    choices: list[_Choice] = []


class Outcome(msgspec.Struct, kw_only=True):
    """What an answer says about itself. ``usage`` is None when the provider did not tell."""

    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    fingerprint: str | None = None  # of the provider's configuration, where it states one
    finish_reasons: list[str] = []


_answer = msgspec.json.Decoder(_Answer).decode


def read_answer(body: bytes) -> Outcome:
    """The outcome of a whole answer; empty when it is not what it should be."""
    try:
        answer = _answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Outcome()
    return Outcome(
        usage=_usage(answer.usage),
        id=answer.id,
        model=answer.model,
        fingerprint=answer.system_fingerprint,
        finish_reasons=[choice.finish_reason for choice in answer.choices if choice.finish_reason],
    )


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []


def read_models(body: bytes) -> list[str]:
    """The names in an answer to ``GET /models``; none when it is not what it should be."""
    try:
        return [model.id for model in msgspec.json.decode(body, type=_Models).data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        return None
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=min(max(0, cached or 0), usage.prompt_tokens),
        reasoning_tokens=max(0, reasoning or 0),
    )


_EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")
_NULL_USAGE = re.compile(rb',\s*"usage":\s*null|"usage":\s*null\s*,\s*')
_FINISHED = re.compile(rb'"finish_reason":\s*"([a-z_]+)"')


class StreamTap:
    """Reads the outcome out of a stream as it passes.

    A client that asked for usage gets every byte as it came. For one that did not, the event that Lockgate asked
    for is left out, and so are the nulls that announce it.
    """

    def __init__(self, *, hide_usage: bool) -> None:
        self.outcome = Outcome()
        self._hide = hide_usage
        self._pending = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take what came; returns what to pass on now (maybe nothing yet)."""
        data = self._pending + chunk if self._pending else chunk
        passed: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(data):
            event = data[start : end.end()]
            start = end.end()
            if self._read(event) and self._hide:
                continue
            if self._hide:
                passed.append(_NULL_USAGE.sub(b"", event) if b'"usage":' in event else event)
        self._pending = data[start:]
        if len(self._pending) > MAX_EVENT:
            raise UpstreamError(f"the provider sent an event of more than {MAX_EVENT} bytes", sent=True)
        return b"".join(passed) if self._hide else chunk

    def finish(self) -> bytes:
        """What is left to pass on when the stream has ended without a final blank line."""
        rest, self._pending = self._pending, b""
        only_usage = bool(rest) and self._read(rest)
        return rest if self._hide and not only_usage else b""

    def _read(self, event: bytes) -> bool:
        """Note what the event tells; True when it carries usage and nothing else."""
        finished = _FINISHED.search(event) if b'"finish_reason":' in event else None
        if finished:
            self.outcome.finish_reasons = [*self.outcome.finish_reasons, finished[1].decode()]
        if self.outcome.id is None or (b'"usage"' in event and b'"usage":null' not in event):
            at = event.find(b"data:")
            if at < 0:
                return False
            try:
                answer = _answer(event[at + 5 :].strip())
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return False
            self.outcome.id = self.outcome.id or answer.id
            self.outcome.model = self.outcome.model or answer.model
            self.outcome.fingerprint = self.outcome.fingerprint or answer.system_fingerprint
            if answer.usage is not None:
                self.outcome.usage = _usage(answer.usage) or self.outcome.usage
                return not answer.choices
        return False
