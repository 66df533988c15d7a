"""An agent asked as if it were a model, in each protocol that has answers: what it is given, and how it answers. Pure.

An agent answers when its run has ended; as a stream, that is one piece.
"""

from __future__ import annotations

from typing import Any, Protocol

from lockgate.errors import InputError
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols import sse
from lockgate.gateway.protocols.answers import document
from lockgate.gateway.protocols.messages_to_chat import MessagesToChat
from lockgate.gateway.protocols.model import Request
from lockgate.results import RunResult

Message = dict[str, Any]

_MESSAGES = MessagesToChat()
_KEPT_ELSEWHERE = ("previous_response_id", "conversation", "prompt")


class Voice(Protocol):
    """One protocol, as agents speak it."""

    def heard(self, call: Request) -> tuple[list[Message], str | None]:
        """The messages (as chat completions has them) and the user in a request; InputError for what is neither."""
        ...

    def answer(self, call: Request, result: RunResult, created: int) -> dict[str, Any]:
        """The whole answer to a run that has completed. ``created``: Unix seconds."""
        ...

    def events(self, call: Request, result: RunResult, created: int) -> bytes:
        """The same as a stream: for clients that only speak streams."""
        ...


class _Chat:
    def heard(self, call: Request) -> tuple[list[Message], str | None]:
        return _some(call.decoded("messages"), "messages"), call.string("user")

    def answer(self, call: Request, result: RunResult, created: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": result.deliverable, "refusal": None}
        return {
            "id": result.run_id,
            "object": "chat.completion",
            "created": created,
            "model": call.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": result.usage.input_tokens,
                "completion_tokens": result.usage.output_tokens,
                "total_tokens": result.usage.total_tokens,
            },
        }

    def events(self, call: Request, result: RunResult, created: int) -> bytes:
        head = {**self.answer(call, result, created), "object": "chat.completion.chunk"}
        usage = head.pop("usage")
        deltas = [({"role": "assistant", "content": result.deliverable}, None), ({}, "stop")]
        told = [
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finished}]} for delta, finished in deltas
        ]
        if call.wants_usage:
            told.append({**head, "choices": [], "usage": usage})
        return b"".join(b"data: " + f.encode(one) + b"\n\n" for one in told) + b"data: [DONE]\n\n"


class _Messages:
    """What chat completions says, translated as for a model that speaks them."""

    def heard(self, call: Request) -> tuple[list[Message], str | None]:
        asked = document(_MESSAGES.forward(call, call.model, 1))
        return _some(asked.get("messages"), "messages"), asked.get("user")

    def answer(self, call: Request, result: RunResult, created: int) -> dict[str, Any]:
        return document(_MESSAGES.answer(f.encode(CHAT.answer(call, result, created)), call))

    def events(self, call: Request, result: RunResult, created: int) -> bytes:
        tap = _MESSAGES.tap(call)
        call.wants_usage = True  # it stands in Anthropic's events always
        return tap.feed(CHAT.events(call, result, created)) + tap.finish()


class _Responses:
    def heard(self, call: Request) -> tuple[list[Message], str | None]:
        for name in _KEPT_ELSEWHERE:
            if f.is_given(call.fields, name):
                raise InputError(f"{name!r} names what agents do not keep", remedy="send the whole conversation")
        given, instructions = call.decoded("input"), call.string("instructions")
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else _items(given)
        if instructions:
            messages.insert(0, {"role": "system", "content": instructions})
        return _some(messages, "input"), call.string("user")

    def answer(self, call: Request, result: RunResult, created: int) -> dict[str, Any]:
        usage = result.usage
        part = {"type": "output_text", "text": result.deliverable, "annotations": [], "logprobs": []}
        item = {"type": "message", "id": f"msg_{result.run_id}", "status": "completed", "role": "assistant"}
        return {
            "id": result.run_id,
            "object": "response",
            "created_at": created,
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": call.model,
            "output": [{**item, "content": [part]}],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": {
                "input_tokens": usage.input_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                "total_tokens": usage.total_tokens,
            },
        }

    def events(self, call: Request, result: RunResult, created: int) -> bytes:
        whole = self.answer(call, result, created)
        item, begun = whole["output"][0], {**whole, "status": "in_progress", "output": [], "usage": None}
        part = item["content"][0]
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        told: list[tuple[str, dict[str, Any]]] = [
            ("response.created", {"response": begun}),
            ("response.in_progress", {"response": begun}),
            ("response.output_item.added",
             {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}}),
            ("response.content_part.added", {**at, "part": {**part, "text": ""}}),
            ("response.output_text.delta", {**at, "delta": part["text"], "logprobs": []}),
            ("response.output_text.done", {**at, "text": part["text"], "logprobs": []}),
            ("response.content_part.done", {**at, "part": part}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
            ("response.completed", {"response": whole}),
        ]  # fmt: skip
        return b"".join(
            sse.event(f.encode({"type": kind, "sequence_number": number, **fields}), kind.encode())
            for number, (kind, fields) in enumerate(told)
        )


CHAT = _Chat()
VOICES: dict[str, Voice] = {"chat": CHAT, "messages": _Messages(), "responses": _Responses()}
"""By the name of a dialect."""


def voice_of(call: Request) -> Voice:
    """How agents answer this request; InputError where they have no answer (embeddings, counts of tokens)."""
    voice = VOICES.get(call.dialect.name)
    if voice is None:
        raise InputError(
            f"agents are not served at {call.dialect.path}",
            remedy="ask /v1/chat/completions, /v1/responses or /v1/messages for one",
        )
    return voice


def _some(messages: Any, name: str) -> list[Message]:
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{name!r} holds no message", remedy="send a list of at least one")
    return messages


def _items(given: Any) -> list[Message]:
    """The items of the responses API as messages."""
    messages: list[Message] = []
    for number, item in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(item, dict) or item.get("type", "message") != "message":
            shown = item.get("type") if isinstance(item, dict) else item
            raise InputError(f"'input[{number}]' is {shown!r}", remedy="send an agent messages; its tools are its own")
        content = item.get("content")
        if isinstance(content, list):
            content = [_part(part, f"input[{number}].content") for part in content]
        messages.append({"role": item.get("role"), "content": content})
    return messages


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text") or ""}
    if kind == "input_image" and part.get("image_url"):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    raise InputError(f"{where!r} holds a part of type {kind!r}", remedy="send an agent texts, and images by their URL")
