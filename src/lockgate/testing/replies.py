"""What a fake model says, and how that looks on the wire (OpenAI chat completions).

A reply is a :class:`Reply`, or whatever :func:`reply_of` makes one of: a string is the answer's text, any other
JSON value is its text as JSON, an exception is an answer of HTTP 500.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from lockgate.results import Usage

Failure = Literal["hang", "close", "cut", "nonsense"]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool the fake model asks for."""

    name: str
    arguments: dict[str, Any]
    id: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One scripted answer. ``usage`` None counts words; ``latency`` (seconds) None is the server's own.

    ``failure`` is ``hang`` (no headers, ever), ``close`` (closed before any byte), ``cut`` (closed in the middle
    of the answer) or ``nonsense`` (bytes that are no HTTP).
    """

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    report_usage: bool = True
    finish_reason: str | None = None
    model: str | None = None  # what the server says it served; None: what was asked for
    latency: float | None = None
    chunk_latency: float = 0.0
    status: int = 200
    error: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes | None = None  # sent as it is, instead of a completion
    events: tuple[bytes, ...] | None = None  # sent as they are, as the chunks of a stream
    failure: Failure | None = None


class ModelRequest(msgspec.Struct, kw_only=True):
    """A request as the fake model received it. ``disconnected``: the client left before it was answered."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]
    disconnected: bool = False
    answered: bool = False

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages", ()))

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def last_user(self) -> str:
        """The text of the last message that is the user's."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return _text_of(message.get("content"))
        return ""


Responder = Callable[[ModelRequest], Any]
"""Answers one request: gives a :class:`Reply`, or what :func:`reply_of` turns into one."""


def reply_of(value: Any) -> Reply:
    """A string as text, a :class:`ToolCall` (or several) as a request for tools, other JSON as JSON text."""
    match value:
        case Reply():
            return value
        case str():
            return Reply(text=value)
        case ToolCall():
            return Reply(tool_calls=(value,))
        case [ToolCall(), *_]:
            return Reply(tool_calls=tuple(value))
        case Exception():
            return failing(500, str(value))
        case _:
            return Reply(text=json.dumps(value, ensure_ascii=False))


def call(name: str, /, **arguments: Any) -> ToolCall:
    """``call("read_orders", order_id="A-17")``: the model asks for a tool."""
    return ToolCall(name=name, arguments=arguments)


def failing(status: int = 500, message: str = "the fake model failed as told") -> Reply:
    """An error answer in OpenAI's shape."""
    return Reply(status=status, error=message)


def rate_limited(retry_after: float = 1.0) -> Reply:
    """429 with ``Retry-After`` in seconds."""
    return Reply(status=429, error="rate limit reached", headers={"retry-after": f"{retry_after:g}"})


def hanging() -> Reply:
    """Takes the request and never answers."""
    return Reply(failure="hang")


def closing() -> Reply:
    """Closes the connection before the first byte of the answer."""
    return Reply(failure="close")


def cut(text: str = "this answer will not be finished") -> Reply:
    """Starts the answer and closes the connection in its middle."""
    return Reply(text=text, failure="cut")


def nonsense() -> Reply:
    """Bytes that are no HTTP."""
    return Reply(failure="nonsense")


def responder_of(responses: Any) -> Responder:
    """A responder from a callable, one constant answer, or a list of answers given in turn.

    When the list is used up, each further request gets HTTP 500 saying so.
    """
    if callable(responses):
        return responses  # type: ignore[no-any-return]  # a callable's result is checked by reply_of
    if not isinstance(responses, (list, tuple)):
        return lambda request: responses
    rest = list(responses)
    total = len(rest)

    def next_one(request: ModelRequest) -> Any:
        if not rest:
            return failing(500, f"the fake model had {total} responses and was asked once more")
        return rest.pop(0)

    return next_one


def usage_of(request: ModelRequest, reply: Reply) -> Usage:
    """The usage told, or one token a word: enough for costs that differ with length."""
    if reply.usage is not None:
        return reply.usage
    asked = sum(len(_text_of(message.get("content")).split()) for message in request.messages)
    said = len((reply.text or "").split())
    said += sum(1 + len(json.dumps(tool.arguments).split()) for tool in reply.tool_calls)
    return Usage(input_tokens=max(1, asked), output_tokens=max(1, said))


def message_of(reply: Reply) -> dict[str, Any]:
    """The assistant message of a completion."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.tool_calls:
        message["tool_calls"] = _wire_calls(reply.tool_calls)
    return message


def completion(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    """A ``chat.completion`` object."""
    answer: dict[str, Any] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": reply.model or request.model,
        "choices": [
            {"index": 0, "message": message_of(reply), "finish_reason": finish_reason(reply), "logprobs": None}
        ],
    }
    if reply.report_usage:
        answer["usage"] = _wire_usage(usage_of(request, reply))
    return answer


def chunks(request: ModelRequest, reply: Reply) -> Iterator[bytes]:
    """The server-sent events of a streamed completion: one a word, then the usage if it was asked for."""
    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 0}
    head["model"] = reply.model or request.model

    def event(choices: Sequence[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        return b"data: " + json.dumps({**head, "choices": choices, "usage": usage}).encode() + b"\n\n"

    def delta(change: dict[str, Any], finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": change, "finish_reason": finish}])

    yield delta({"role": "assistant", "content": "" if reply.text is not None else None})
    for word in _words(reply.text or ""):
        yield delta({"content": word})
    for index, tool in enumerate(_wire_calls(reply.tool_calls)):
        arguments = tool["function"]["arguments"]
        first = {"index": index, **tool, "function": {"name": tool["function"]["name"], "arguments": ""}}
        yield delta({"tool_calls": [first]})
        yield delta({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})
    yield delta({}, finish_reason(reply))
    if reply.report_usage and (request.body.get("stream_options") or {}).get("include_usage"):
        yield event([], _wire_usage(usage_of(request, reply)))
    yield b"data: [DONE]\n\n"


def error_body(reply: Reply) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "rate_limit_error" if reply.status == 429 else "server_error" if reply.status >= 500 else "invalid_request"
    return {"error": {"message": reply.error or "error", "type": kind, "param": None, "code": None}}


def error_of(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    """The error as the protocol of this request has it."""
    if not request.path.startswith("/v1/messages"):
        return error_body(reply)
    kind = {429: "rate_limit_error", 529: "overloaded_error", 400: "invalid_request_error"}.get(
        reply.status, "api_error"
    )
    return {"type": "error", "error": {"type": kind, "message": reply.error or "error"}}


def finish_reason(reply: Reply) -> str:
    """What the choice says of its end."""
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _wire_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": tool.id or f"call_{index}",
            "type": "function",
            "function": {"name": tool.name, "arguments": json.dumps(tool.arguments)},
        }
        for index, tool in enumerate(calls)
    ]


def _wire_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _words(text: str) -> list[str]:
    """The text in pieces that join to exactly it."""
    pieces = text.split(" ")
    return [piece if index == 0 else " " + piece for index, piece in enumerate(pieces) if piece or index]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""
