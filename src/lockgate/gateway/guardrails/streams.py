"""Answers in pieces: server-sent events whose texts go through the checks before the client sees them.

Texts flow with the end held back that may still become a finding; a tool call waits until it is whole, for nobody can
use half of one, and what is in it is only known when its JSON is. Every text of an answer (each choice's content, its
reasoning, each block) is a text of its own. What cannot be read does not pass.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from lockgate.errors import UpstreamError
from lockgate.gateway.guardrails.answers import checked_answer, tool_call
from lockgate.gateway.guardrails.schemas import MESSAGES_UNBOUND
from lockgate.gateway.guardrails.stages import Chain, Whole, within_json
from lockgate.gateway.protocols.sse import Events, data_of

MAX_CALL = 4 * 1024 * 1024
"""Characters of one tool call that are held back."""

_SPOKEN = ("content", "refusal", "reasoning_content", "reasoning")
NewChain = Callable[[], Chain]
AtEnd = Callable[[str], None]
"""Told the text of each choice when it is whole; may raise."""


def _decoded(event: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """An event's JSON object, and its data; None for what carries none (a comment, ``[DONE]``)."""
    data = data_of(event)
    if not data or data == b"[DONE]":
        return None, data
    try:
        value = json.loads(data)  # as lenient as clients are: half a surrogate pair is no reason to end a stream
    except (ValueError, RecursionError) as wrong:
        raise UpstreamError("the provider sent an event that cannot be checked: it is no JSON", sent=True) from wrong
    if not isinstance(value, dict):
        raise UpstreamError("the provider sent an event that cannot be checked: it is no JSON object", sent=True)
    return value, data


def _encoded(value: Any, name: str | None = None) -> bytes:
    data = json.dumps(value, separators=(",", ":")).encode()
    return b"data: " + data + b"\n\n" if name is None else f"event: {name}\n".encode() + b"data: " + data + b"\n\n"


class _Stream(ABC):
    """What the protocols' streams have in common: events taken one by one, and what is held until the end."""

    def __init__(self, new: NewChain, whole: Whole, *, hold: bool = False, at_end: AtEnd | None = None) -> None:
        """``whole`` checks a text that is there as a whole. ``hold``: nothing goes out before the stream's end."""
        self._new = new
        self._whole = whole
        self._hold = hold
        self._at_end = at_end
        self._events = Events()
        self._said: dict[int, list[str]] = {}
        """What each choice says; protocols without choices have one."""
        self._held: list[bytes] = []
        self._unbound: set[int] = set()
        """Choices that call tools, refuse or were cut off: no schema binds what they say."""

    def feed(self, data: bytes) -> bytes:
        out = b"".join(self._event(event) for event in self._events.feed(data))
        if self._hold:
            self._held.append(out)
            return b""
        return out

    def finish(self) -> bytes:
        rest = self._events.finish()
        out = self._event(rest) if rest.strip() else b""
        out += self._close()
        if self._at_end is not None:
            for choice, texts in sorted(self._said.items()):
                if choice not in self._unbound:
                    self._at_end("".join(texts))
        held, self._held = b"".join(self._held), []
        return held + out

    def _note(self, text: str, choice: int = 0) -> None:
        self._said.setdefault(choice, []).append(text)

    @abstractmethod
    def _event(self, event: bytes) -> bytes:
        """What may go out once this event has come."""

    def _close(self) -> bytes:
        """What is left of texts that never said that they had ended."""
        return b""


class ChatStream(_Stream):
    """Chunks of chat completions."""

    def __init__(self, new: NewChain, whole: Whole, *, hold: bool = False, at_end: AtEnd | None = None) -> None:
        super().__init__(new, whole, hold=hold, at_end=at_end)
        self._texts: dict[tuple[int, str], Chain] = {}
        self._calls: dict[int, dict[int, dict[str, Any]]] = {}
        self._head: dict[str, Any] = {}
        self._size = 0

    def _event(self, event: bytes) -> bytes:
        chunk, data = _decoded(event)
        if chunk is None:
            return self._close() + event if data == b"[DONE]" else event
        choices = chunk.get("choices")
        if "error" in chunk and not choices:
            return self._close() + event
        self._head = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
        if not isinstance(choices, list) or not choices:
            return _encoded(chunk)
        kept = [checked for choice in choices if (checked := self._choice(choice)) is not None]
        if not kept and not chunk.get("usage"):
            return b""
        return _encoded({**chunk, "choices": kept})

    def _choice(self, choice: Any) -> dict[str, Any] | None:
        """The choice as it may go out; None when nothing of it may, yet."""
        if not isinstance(choice, dict):
            return None
        index = choice.get("index", 0)
        index = index if isinstance(index, int) else 0
        delta = dict(choice["delta"]) if isinstance(choice.get("delta"), dict) else {}
        had_text, refuses = False, bool(delta.get("refusal"))
        for name in _SPOKEN:
            if isinstance(delta.get(name), str):
                had_text = had_text or bool(delta[name])
                out = self._chain(index, name).feed(delta[name]) if delta[name] else ""
                if name == "content":
                    self._note(out, index)
                if out or not delta[name]:
                    delta[name] = out
                else:
                    del delta[name]
        waits = self._take_calls(index, delta)
        if waits or refuses or choice.get("finish_reason") == "length":
            self._unbound.add(index)
        checked = {**choice, "delta": delta}
        if isinstance(choice.get("text"), str):  # completions of old
            checked["text"] = self._chain(index, "text").feed(choice["text"])
        if choice.get("logprobs"):
            checked["logprobs"] = None  # the same text again, token by token
        if choice.get("finish_reason") is not None:
            for name, text in self._rest(index).items():
                delta[name] = (delta.get(name) or "") + text
            calls = self._whole_calls(index)
            if calls:
                delta["tool_calls"] = calls
            return checked
        empty = (
            not any(delta.get(name) for name in _SPOKEN) and set(delta) <= {*_SPOKEN, "role"} and "text" not in checked
        )
        if empty and (had_text or waits) and "role" not in delta:
            return None
        return checked

    def _chain(self, index: int, name: str) -> Chain:
        chain = self._texts.get((index, name))
        if chain is None:
            chain = self._texts[index, name] = self._new()
        return chain

    def _rest(self, index: int) -> dict[str, str]:
        rest = {}
        for place in [place for place in self._texts if place[0] == index]:
            text = self._texts.pop(place).finish()
            if place[1] == "content":
                self._note(text, index)
            if text:
                rest[place[1]] = text
        return rest

    def _take_calls(self, index: int, delta: dict[str, Any]) -> bool:
        """Put the pieces of tool calls aside."""
        pieces = delta.pop("tool_calls", None)
        old = delta.pop("function_call", None)
        if isinstance(old, dict):
            pieces = [{"index": -1, "function": old}]
        if not isinstance(pieces, list):
            return False
        calls = self._calls.setdefault(index, {})
        for piece in pieces:
            if not isinstance(piece, dict):
                continue
            number = piece.get("index", 0)
            held = calls.setdefault(number if isinstance(number, int) else 0, {})
            _join(held, piece)
            self._size += len(json.dumps(piece))
            if self._size > MAX_CALL:
                raise UpstreamError(f"tool calls of more than {MAX_CALL} characters cannot be checked", sent=True)
        return True

    def _whole_calls(self, index: int) -> list[dict[str, Any]]:
        calls = self._calls.pop(index, {})
        return [{**tool_call(call, self._whole), "index": number} for number, call in sorted(calls.items())]

    def _close(self) -> bytes:
        choices = []
        for index in sorted({place[0] for place in self._texts} | set(self._calls)):
            delta: dict[str, Any] = dict(self._rest(index))
            if calls := self._whole_calls(index):
                delta["tool_calls"] = calls
            if delta:
                choices.append({"index": index, "delta": delta, "finish_reason": None})
        return _encoded({**self._head, "choices": choices}) if choices else b""


def _join(held: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if isinstance(value, dict):
            _join(held.setdefault(name, {}), value)
        elif isinstance(value, str) and name in ("arguments", "input") and isinstance(held.get(name), str):
            held[name] += value
        elif value is not None or name not in held:
            held[name] = value


class MessagesStream(_Stream):
    """Events of Anthropic messages: blocks that start, grow and stop."""

    def __init__(self, new: NewChain, whole: Whole, *, hold: bool = False, at_end: AtEnd | None = None) -> None:
        super().__init__(new, whole, hold=hold, at_end=at_end)
        self._texts: dict[int, tuple[str, Chain]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._size = 0

    def _event(self, event: bytes) -> bytes:
        value, _ = _decoded(event)
        if value is None:
            return event
        kind, index = value.get("type"), value.get("index", 0)
        delta = value.get("delta")
        if kind == "message_delta" and isinstance(delta, dict) and delta.get("stop_reason") in MESSAGES_UNBOUND:
            self._unbound.add(0)
        if kind == "content_block_start" and isinstance(value.get("content_block"), dict):
            block = value["content_block"]
            for name in ("text", "thinking"):
                if isinstance(block.get(name), str):
                    chain = self._new()
                    self._texts[index] = (name, chain)
                    value["content_block"] = {**block, name: self._spoken(chain.feed(block[name]), name)}
            return _encoded(value, kind)
        if kind == "content_block_delta" and isinstance(value.get("delta"), dict):
            return self._delta(value, index)
        if kind == "content_block_stop":
            return self._stop(index) + _encoded(value, kind)
        return _encoded(value, kind if isinstance(kind, str) else None)

    def _close(self) -> bytes:
        return b"".join(self._stop(index) for index in sorted({*self._texts, *self._inputs}))

    def _spoken(self, text: str, name: str) -> str:
        if name == "text":
            self._note(text)
        return text

    def _delta(self, value: dict[str, Any], index: int) -> bytes:
        delta = value["delta"]
        for name in ("text", "thinking"):
            if isinstance(delta.get(name), str):
                known = self._texts.setdefault(index, (name, self._new()))
                out = self._spoken(known[1].feed(delta[name]), name)
                value["delta"] = {**delta, name: out}
                return _encoded(value, "content_block_delta") if out else b""
        if isinstance(delta.get("partial_json"), str):
            self._inputs.setdefault(index, []).append(delta["partial_json"])
            self._size += len(delta["partial_json"])
            if self._size > MAX_CALL:
                raise UpstreamError(f"tool calls of more than {MAX_CALL} characters cannot be checked", sent=True)
            return b""
        return _encoded(value, "content_block_delta")

    def _stop(self, index: int) -> bytes:
        deltas: list[dict[str, Any]] = []
        known = self._texts.pop(index, None)
        if known is not None and (rest := self._spoken(known[1].finish(), known[0])):
            deltas.append({"type": f"{known[0]}_delta", known[0]: rest})
        written = "".join(self._inputs.pop(index, ()))
        if written:
            deltas.append({"type": "input_json_delta", "partial_json": within_json(written, self._whole)})
        return b"".join(
            _encoded({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
            for delta in deltas
        )


class ResponsesStream(_Stream):
    """Events of OpenAI responses, which say each text twice: in pieces, and again as a whole."""

    def __init__(self, new: NewChain, whole: Whole, *, hold: bool = False, at_end: AtEnd | None = None) -> None:
        super().__init__(new, whole, hold=hold, at_end=at_end)
        self._texts: dict[tuple[Any, ...], Chain] = {}

    def _event(self, event: bytes) -> bytes:
        value, _ = _decoded(event)
        if value is None:
            return event
        kind = value.get("type")
        kind = kind if isinstance(kind, str) else ""
        item = value.get("item")
        if kind == "response.incomplete" or (isinstance(item, dict) and "call" in str(item.get("type"))):
            self._unbound.add(0)
        place = (kind.rsplit(".", 1)[0], value.get("item_id"), value.get("output_index"), value.get("content_index"))
        if kind.endswith(".delta"):
            if not isinstance(value.get("delta"), str):
                return _encoded(value, kind)
            if "arguments" in kind or "input" in kind:
                return b""  # the whole of them comes with the event that ends them
            out = (self._texts.get(place) or self._begin(place)).feed(value["delta"])
            if "output_text" in kind:
                self._note(out)
            value.pop("logprobs", None)
            return _encoded({**value, "delta": out}, kind) if out else b""
        before = b""
        if kind.endswith(".done") and place in self._texts:
            rest = self._texts.pop(place).finish()
            if "output_text" in kind:
                self._note(rest)
            if rest:
                head = {name: one for name, one in value.items() if name not in ("text", "type", "logprobs")}
                before = _encoded({**head, "type": f"{place[0]}.delta", "delta": rest}, f"{place[0]}.delta")
        return before + _encoded(self._checked(value), kind or None)

    def _begin(self, place: tuple[Any, ...]) -> Chain:
        chain = self._texts[place] = self._new()
        return chain

    def _checked(self, value: dict[str, Any]) -> dict[str, Any]:
        checked = dict(value)
        for name in ("text", "refusal", "input"):
            if isinstance(value.get(name), str):
                checked[name] = self._whole(value[name])
        if isinstance(value.get("arguments"), str):
            checked["arguments"] = within_json(value["arguments"], self._whole)
        if isinstance(value.get("part"), dict) and isinstance(value["part"].get("text"), str):
            checked["part"] = {**value["part"], "text": self._whole(value["part"]["text"])}
        if isinstance(value.get("item"), dict):
            checked["item"] = checked_answer("responses", {"output": [value["item"]]}, self._whole)["output"][0]
        if isinstance(value.get("response"), dict):
            checked["response"] = checked_answer("responses", value["response"], self._whole)
        return checked


STREAMS: dict[str, type[ChatStream] | type[MessagesStream] | type[ResponsesStream]] = {
    "chat": ChatStream,
    "messages": MessagesStream,
    "responses": ResponsesStream,
}
