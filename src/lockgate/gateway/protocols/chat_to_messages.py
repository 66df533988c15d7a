"""Chat completions asked of an upstream that speaks Anthropic's messages: the request, the answer and the stream. Pure.

What cannot be said there and would change the shape of the answer is refused, naming the parameter. What only tunes
the sampling is left out, as Anthropic's own compatibility layer does.
https://docs.anthropic.com/en/api/openai-sdk
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols import sse
from lockgate.gateway.protocols.answers import document
from lockgate.gateway.protocols.dialect import TranslatedStream, Translation
from lockgate.gateway.protocols.messages import MessagesPassage, MessagesTap, with_prefix_marked
from lockgate.gateway.protocols.model import Outcome, Request
from lockgate.results import Usage

_REFUSED = ("logprobs", "top_logprobs", "logit_bias", "audio", "prediction", "web_search_options", "functions")
"""They ask for something in the answer that Anthropic's has not."""
_PASSED = ("temperature", "top_p", "stream")
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_native = MessagesPassage()


class ChatToMessages(Translation):
    """To an Anthropic upstream."""

    path = "/messages"

    def _forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        asked = {name: request.decoded(name) for name in request.fields}
        for name in _REFUSED:
            if asked.get(name) or (name == "web_search_options" and asked.get(name) is not None):  # {} asks for it
                raise InputError(f"{name!r} cannot be asked of {request.model!r}", remedy=f"leave {name!r} out")
        if any(kind != "text" for kind in asked.get("modalities") or ()):
            raise InputError(
                f"'modalities' cannot be asked of {request.model!r}", remedy="this provider answers in text"
            )
        if request.n > 1:
            raise InputError(f"'n' is {request.n}, and this provider gives one answer", remedy="ask once for each")
        system, messages = _messages(asked["messages"])
        sent: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens or max_tokens, "messages": messages}
        sent.update({name: asked[name] for name in _PASSED if asked.get(name) is not None})
        if isinstance(sent.get("temperature"), int | float):
            sent["temperature"] = min(1.0, sent["temperature"])
        stop = asked.get("stop")
        if stop:
            sent["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if isinstance(asked.get("user"), str):
            sent["metadata"] = {"user_id": asked["user"]}
        wanted = asked.get("response_format") or {}
        if wanted.get("type") == "json_schema":
            schema = (wanted.get("json_schema") or {}).get("schema") or {}
            sent["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        elif wanted.get("type") == "json_object":
            system.append({"type": "text", "text": "Answer with one JSON object and nothing else."})
        if system:
            sent["system"] = system
        _tools(asked, sent)
        if request.keeps_prefix:
            sent |= with_prefix_marked(sent.get("system"), sent.get("tools"))
        return f.encode(sent)

    def outcome(self, body: bytes) -> Outcome:
        outcome = _native.outcome(body)
        outcome.finish_reasons = [FINISH.get(reason, reason) for reason in outcome.finish_reasons]
        return outcome

    def _answer(self, body: bytes) -> bytes:
        told = document(body)
        text, thoughts, calls = [], [], []
        for part in told.get("content") or ():
            kind = part.get("type")
            if kind == "text":
                text.append(part.get("text") or "")
            elif kind == "thinking":
                thoughts.append(part.get("thinking") or "")
            elif kind == "tool_use":
                arguments = f.encode(part.get("input") or {}).decode()
                function = {"name": part.get("name"), "arguments": arguments}
                calls.append({"id": part.get("id"), "type": "function", "function": function})
        message: dict[str, Any] = {"role": "assistant", "content": "".join(text) if text else None, "refusal": None}
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        finish = FINISH.get(told.get("stop_reason") or "", "stop")
        answer = {
            "id": told.get("id"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": told.get("model"),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": chat_usage(_native.outcome(body).usage),
        }
        return f.encode(answer)

    def tap(self, request: Request) -> MessagesAsChat:
        return MessagesAsChat(wants_usage=request.wants_usage)

    def refusal(self, status: int, body: bytes) -> bytes:
        error = document(body).get("error")
        said = error if isinstance(error, dict) else {"message": body[:500].decode("utf-8", "replace")}
        told = {"message": said.get("message"), "type": said.get("type") or "server_error", "param": None, "code": None}
        return f.encode({"error": told})


def chat_usage(usage: Usage | None) -> dict[str, Any] | None:
    """Usage as chat completions tell it."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


# --- the request ----------------------------------------------------------------------------------------------


def _messages(messages: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system's texts, and the turns: Anthropic's alternate, so that neighbours of one role become one."""
    if not isinstance(messages, list):
        raise InputError("'messages' is no list", remedy="send a list of messages")
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InputError(f"'messages[{index}]' is no object", remedy="each message has a role and content")
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            system += _parts(content, index)
            continue
        if role == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": message.get("tool_call_id"),
                "content": _parts(content, index),
            }
            role, parts = "user", [result]
        else:
            parts = _parts(content, index)
            parts += [_tool_use(call, index) for call in message.get("tool_calls") or ()]
        if role not in ("user", "assistant"):
            raise InputError(f"'messages[{index}].role' is {role!r}", remedy="write system, user, assistant or tool")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += parts
        elif parts:
            turns.append({"role": role, "content": parts})
    return system, turns


def _parts(content: Any, index: int) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_part(part, index) for part in content or ()]


def _part(part: Any, index: int) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal"):
        return {"type": "text", "text": part.get("text") or part.get("refusal") or ""}
    if kind == "image_url":
        return {"type": "image", "source": _source((part.get("image_url") or {}).get("url") or "")}
    if kind == "file" and (part.get("file") or {}).get("file_data"):
        return {"type": "document", "source": _source(part["file"]["file_data"])}
    raise InputError(
        f"'messages[{index}]' holds a part of type {kind!r}, which this provider does not take", remedy="leave it out"
    )


def _source(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.removeprefix("data:").partition(",")
    return {"type": "base64", "media_type": head.partition(";")[0], "data": data}


def _tool_use(call: dict[str, Any], index: int) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except f.UNREADABLE as wrong:
        raise InputError(f"'messages[{index}].tool_calls' holds arguments that are no JSON: {wrong}") from wrong
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": arguments}


def _tools(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    tools = []
    for tool in asked.get("tools") or ():
        function = tool.get("function")
        if not isinstance(function, dict):
            raise InputError(
                f"'tools' holds one of type {tool.get('type')!r}", remedy="this provider takes functions only"
            )
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        translated = {"name": function.get("name"), "input_schema": schema}
        if function.get("description"):
            translated["description"] = function["description"]
        tools.append(translated)
    if not tools:
        return
    sent["tools"] = tools
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        translated = {"type": "tool", "name": (choice.get("function") or {}).get("name")}
    else:
        translated = {"type": {"required": "any", "none": "none"}.get(choice or "", "auto")}
    if asked.get("parallel_tool_calls") is False and translated["type"] != "none":
        translated["disable_parallel_tool_use"] = True
    if choice is not None or len(translated) > 1:
        sent["tool_choice"] = translated


# --- the stream -----------------------------------------------------------------------------------------------


class MessagesAsChat(TranslatedStream):
    """A stream of Anthropic's events, given as chunks of a chat completion."""

    def __init__(self, *, wants_usage: bool) -> None:
        super().__init__(MessagesTap())
        self._wants_usage = wants_usage
        self._created = int(time.time())
        self._tools: dict[int, int] = {}  # content block → number of the tool call
        self._done = False

    def _event_of(self, event: bytes) -> bytes:
        told = document(sse.data_of(event))
        kind = told.get("type")
        if kind == "message_start":
            return self._chunk({"role": "assistant", "content": ""})
        if kind == "content_block_start":
            block = told.get("content_block") or {}
            if block.get("type") != "tool_use":
                return b""
            number = self._tools[told.get("index", 0)] = len(self._tools)
            function = {"name": block.get("name"), "arguments": ""}
            call = {"index": number, "id": block.get("id"), "type": "function", "function": function}
            return self._chunk({"tool_calls": [call]})
        if kind == "content_block_delta":
            return self._delta(told.get("delta") or {}, told.get("index", 0))
        if kind == "message_delta":
            reason = (told.get("delta") or {}).get("stop_reason")
            if not reason:
                return b""
            finish = FINISH.get(reason, "stop")
            self.outcome.finish_reasons = [finish]
            return self._chunk({}, finish)
        if kind == "message_stop" and not self._done:
            self._done = True
            usage = b""
            if self._wants_usage:
                usage = self._event([], usage=chat_usage(self.outcome.usage))
            return usage + sse.event(b"[DONE]")
        if kind == "error":
            return sse.event(f.encode({"error": {"message": self.outcome.error, "type": "server_error"}}))
        return b""

    def _delta(self, delta: dict[str, Any], index: int) -> bytes:
        kind = delta.get("type")
        if kind == "text_delta":
            return self._chunk({"content": delta.get("text")})
        if kind == "thinking_delta":
            return self._chunk({"reasoning_content": delta.get("thinking")})
        if kind == "input_json_delta":
            arguments = {"arguments": delta.get("partial_json")}
            return self._chunk({"tool_calls": [{"index": self._tools.get(index, 0), "function": arguments}]})
        return b""

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {"id": self.outcome.id, "object": "chat.completion.chunk", "created": self._created}
        return sse.event(f.encode({**head, "model": self.outcome.model, "choices": choices, **more}))
