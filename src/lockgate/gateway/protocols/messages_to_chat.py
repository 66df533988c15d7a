"""Anthropic's messages asked of an upstream that speaks chat completions: the request, the answer and the stream. Pure.

Tools that the provider would run, and documents it cannot read, are refused by name. ``top_k``, ``thinking`` and cache
hints have nothing to correspond to and are left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols import sse
from lockgate.gateway.protocols.answers import document
from lockgate.gateway.protocols.chat import ChatPassage, ChatTap, bound_name
from lockgate.gateway.protocols.dialect import TranslatedStream, Translation
from lockgate.gateway.protocols.model import Outcome, Request
from lockgate.results import Usage

STOP_REASON = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_PASSED = ("temperature", "top_p", "stream")

_native = ChatPassage()


class MessagesToChat(Translation):
    """To an upstream of OpenAI's kind."""

    path = "/chat/completions"

    def _forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        asked = {name: request.decoded(name) for name in request.fields}
        sent: dict[str, Any] = {"model": model, "messages": _messages(asked)}
        sent[bound_name(model)] = request.max_tokens or max_tokens
        sent.update({name: asked[name] for name in _PASSED if asked.get(name) is not None})
        if asked.get("stop_sequences"):
            sent["stop"] = asked["stop_sequences"]
        user = (asked.get("metadata") or {}).get("user_id")
        if user:
            sent["user"] = user
        wanted = (asked.get("output_config") or {}).get("format") or asked.get("output_format") or {}
        if wanted.get("type") == "json_schema":
            schema = {"name": "answer", "schema": wanted.get("schema") or {}, "strict": True}
            sent["response_format"] = {"type": "json_schema", "json_schema": schema}
        _tools(asked, sent)
        if request.stream:
            sent["stream_options"] = {"include_usage": True}
        return f.encode(sent)

    def outcome(self, body: bytes) -> Outcome:
        outcome = _native.outcome(body)
        outcome.finish_reasons = [STOP_REASON.get(reason, reason) for reason in outcome.finish_reasons]
        return outcome

    def _answer(self, body: bytes) -> bytes:
        told = document(body)
        choice = (told.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        content: list[dict[str, Any]] = []
        text = message.get("content") or message.get("refusal")
        if text:
            content.append({"type": "text", "text": text})
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            made = {"type": "tool_use", "id": call.get("id"), "name": function.get("name")}
            content.append({**made, "input": _arguments(function.get("arguments"))})
        answer = {
            "id": told.get("id"),
            "type": "message",
            "role": "assistant",
            "model": told.get("model"),
            "content": content,
            "stop_reason": STOP_REASON.get(choice.get("finish_reason") or "stop", "end_turn"),
            "stop_sequence": None,
            "usage": messages_usage(_native.outcome(body).usage or Usage()),
        }
        return f.encode(answer)

    def tap(self, request: Request) -> ChatAsMessages:
        return ChatAsMessages()

    def refusal(self, status: int, body: bytes) -> bytes:
        error = document(body).get("error")
        said = error if isinstance(error, dict) else {"message": body[:500].decode("utf-8", "replace")}
        kinds = {
            400: "invalid_request_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
        }
        kinds |= {503: "overloaded_error", 529: "overloaded_error"}
        told = {"type": kinds.get(status, "api_error"), "message": said.get("message")}
        return f.encode({"type": "error", "error": told})


def messages_usage(usage: Usage) -> dict[str, Any]:
    """Usage as the messages API tells it."""
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
    }


def _arguments(text: Any) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except (*f.UNREADABLE, TypeError):
        return {"arguments": text}


# --- the request ----------------------------------------------------------------------------------------------


def _messages(asked: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    system = asked.get("system")
    if isinstance(system, list):
        system = "\n\n".join(part.get("text") or "" for part in system)
    if system:
        sent.append({"role": "system", "content": system})
    messages = asked["messages"]
    if not isinstance(messages, list):
        raise InputError("'messages' is no list", remedy="send a list of messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InputError(f"'messages[{index}]' is no object", remedy="each message has a role and content")
        role, content = message.get("role"), message.get("content")
        if isinstance(content, str):
            sent.append({"role": role, "content": content})
        elif role == "assistant":
            sent.append(_assistant(content or [], index))
        else:
            sent += _user(content or [], index)
    return sent


def _assistant(content: list[dict[str, Any]], index: int) -> dict[str, Any]:
    text: list[str] = []
    calls = []
    for part in content:
        kind = part.get("type")
        if kind == "text":
            text.append(part.get("text") or "")
        elif kind == "tool_use":
            function = {"name": part.get("name"), "arguments": f.encode(part.get("input") or {}).decode()}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif kind not in ("thinking", "redacted_thinking"):
            raise _untranslatable(kind, index)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text) if text else None}
    if calls:
        message["tool_calls"] = calls
    return message


def _user(content: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    """Results of tools are messages of their own there, before what the user says."""
    results: list[dict[str, Any]] = []
    parts = []
    for part in content:
        if part.get("type") == "tool_result":
            inner = part.get("content")
            if isinstance(inner, list):
                if any(one.get("type") != "text" for one in inner):
                    parts += [_part(one, index) for one in inner if one.get("type") != "text"]
                inner = "\n".join(one.get("text") or "" for one in inner if one.get("type") == "text")
            if part.get("is_error"):
                inner = f"Error: {inner}"
            results.append({"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": inner or ""})
        else:
            parts.append(_part(part, index))
    if len(parts) == 1 and parts[0]["type"] == "text":
        return [*results, {"role": "user", "content": parts[0]["text"]}]
    return [*results, {"role": "user", "content": parts}] if parts else results


def _part(part: dict[str, Any], index: int) -> dict[str, Any]:
    kind, source = part.get("type"), part.get("source") or {}
    if kind == "text":
        return {"type": "text", "text": part.get("text") or ""}
    data = f"data:{source.get('media_type')};base64,{source.get('data')}" if source.get("type") == "base64" else None
    if kind == "image" and (data or source.get("type") == "url"):
        return {"type": "image_url", "image_url": {"url": data or source.get("url")}}
    if kind == "document" and data:
        return {"type": "file", "file": {"filename": part.get("title") or "document.pdf", "file_data": data}}
    if kind == "document" and source.get("type") == "text":
        return {"type": "text", "text": source.get("data") or ""}
    raise _untranslatable(kind, index)


def _untranslatable(kind: Any, index: int) -> InputError:
    return InputError(
        f"'messages[{index}]' holds a part of type {kind!r}, which this provider does not take", remedy="leave it out"
    )


def _tools(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    tools = []
    for tool in asked.get("tools") or ():
        if "input_schema" not in tool:
            raise InputError(
                f"'tools' holds {tool.get('type')!r}", remedy="this provider takes tools with an input_schema"
            )
        function = {"name": tool.get("name"), "parameters": tool["input_schema"]}
        if tool.get("description"):
            function["description"] = tool["description"]
        tools.append({"type": "function", "function": function})
    if not tools:
        return
    sent["tools"] = tools
    choice = asked.get("tool_choice") or {}
    kind = choice.get("type")
    if kind == "tool":
        sent["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind:
        sent["tool_choice"] = {"any": "required", "none": "none"}.get(kind, "auto")
    if choice.get("disable_parallel_tool_use"):
        sent["parallel_tool_calls"] = False


# --- the stream -----------------------------------------------------------------------------------------------


class ChatAsMessages(TranslatedStream):
    """A stream of chat-completion chunks, given as Anthropic's events."""

    def __init__(self) -> None:
        super().__init__(ChatTap(hide_usage=False))
        self._started = False
        self._block = -1
        self._kind: object = None  # what the open block is: "text", or the number of a tool call
        self._stop: str | None = None
        self._ended = False

    def finish(self) -> bytes:
        return super().finish() + (self._end() if self._stop is not None else b"")

    def _event_of(self, event: bytes) -> bytes:
        data = sse.data_of(event)
        if data == b"[DONE]":
            return self._end()
        told = document(data)
        if told.get("error"):
            error = {"type": "api_error", "message": self.outcome.error}
            return sse.event(f.encode({"type": "error", "error": error}), b"error")
        made: list[bytes] = []
        if not self._started and told:
            self._started = True
            head = {"id": self.outcome.id, "type": "message", "role": "assistant", "model": self.outcome.model}
            usage = {"input_tokens": 0, "output_tokens": 0}
            message: dict[str, Any] = {
                **head,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage,
            }
            made.append(_event("message_start", message=message))
        for choice in (told.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            text = delta.get("content") or delta.get("refusal")
            if text:
                self._open(made, "text", {"type": "text", "text": ""})
                made.append(
                    _event("content_block_delta", index=self._block, delta={"type": "text_delta", "text": text})
                )
            for call in delta.get("tool_calls") or ():
                self._call(made, call)
            if choice.get("finish_reason"):
                self._stop = STOP_REASON.get(choice["finish_reason"], "end_turn")
                self.outcome.finish_reasons = [self._stop]
        return b"".join(made)

    def _call(self, made: list[bytes], call: dict[str, Any]) -> None:
        function = call.get("function") or {}
        block: dict[str, Any] = {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}}
        self._open(made, call.get("index", 0), block)
        if function.get("arguments"):
            delta = {"type": "input_json_delta", "partial_json": function["arguments"]}
            made.append(_event("content_block_delta", index=self._block, delta=delta))

    def _open(self, made: list[bytes], kind: object, block: dict[str, Any]) -> None:
        if self._kind == kind:
            return
        self._close(made)
        self._block, self._kind = self._block + 1, kind
        made.append(_event("content_block_start", index=self._block, content_block=block))

    def _close(self, made: list[bytes]) -> None:
        if self._kind is not None:
            made.append(_event("content_block_stop", index=self._block))
            self._kind = None

    def _end(self) -> bytes:
        """The last words: they wait for the usage, which comes after the reason to stop."""
        if self._ended or not self._started:
            return b""
        self._ended = True
        made: list[bytes] = []
        self._close(made)
        usage = messages_usage(self.outcome.usage or Usage())
        delta = {"stop_reason": self._stop or "end_turn", "stop_sequence": None}
        made.append(_event("message_delta", delta=delta, usage=usage))
        made.append(_event("message_stop"))
        return b"".join(made)


def _event(kind: str, **fields: Any) -> bytes:
    return sse.event(f.encode({"type": kind, **fields}), kind.encode())
