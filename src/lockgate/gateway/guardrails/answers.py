"""Where the texts of an answer stand, in each protocol. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from lockgate.errors import UpstreamError
from lockgate.gateway.guardrails.stages import Whole, within_json, within_value
from lockgate.gateway.protocols.fields import UNREADABLE

MakeWhole = Callable[[], Whole]
"""A fresh check for one text."""

_SPOKEN = ("content", "refusal", "reasoning_content", "reasoning", "text")


def decoded(body: bytes) -> Any:
    """An answer as Python values; UpstreamError when it is no JSON."""
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        pass
    try:
        return json.loads(body)  # takes more than JSON allows: half of a surrogate pair, NaN
    except (ValueError, RecursionError) as wrong:
        raise UpstreamError("the provider's answer cannot be checked: it is no JSON", sent=True) from wrong


def checked_body(dialect: str, body: bytes, whole: Whole) -> bytes:
    """The answer with its texts checked: the same bytes where nothing had to change."""
    answer = decoded(body)
    checked = checked_answer(dialect, answer, whole)
    # Written with escapes: UTF-8 has no way to write half of a surrogate pair.
    return body if checked == answer else json.dumps(checked, separators=(",", ":")).encode()


def checked_answer(dialect: str, answer: Any, whole: Whole) -> Any:
    """The decoded answer with its texts checked: what the model said, thought, and wants tools to be called with."""
    if not isinstance(answer, dict):
        return answer
    if dialect == "messages":
        return {**answer, "content": [_block(block, whole) for block in _list(answer.get("content"))]}
    if dialect == "responses":
        checked = {**answer, "output": [_item(item, whole) for item in _list(answer.get("output"))]}
        if isinstance(answer.get("output_text"), str):
            checked["output_text"] = whole(answer["output_text"])
        return checked
    return {**answer, "choices": [_choice(choice, whole) for choice in _list(answer.get("choices"))]}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _choice(choice: Any, whole: Whole) -> Any:
    if not isinstance(choice, dict):
        return choice
    checked = dict(choice)
    if isinstance(choice.get("text"), str):
        checked["text"] = whole(choice["text"])
    if isinstance(choice.get("message"), dict):
        checked["message"] = message(choice["message"], whole)
    if checked != choice and checked.get("logprobs"):
        checked["logprobs"] = None  # the same text again, token by token
    return checked


def message(given: dict[str, Any], whole: Whole) -> dict[str, Any]:
    """A chat message with its texts and the arguments of its tool calls checked."""
    checked = dict(given)
    for name in _SPOKEN:
        value = given.get(name)
        if isinstance(value, str):
            checked[name] = whole(value)
        elif isinstance(value, list):
            checked[name] = [
                {**part, "text": whole(part["text"])}
                if isinstance(part, dict) and isinstance(part.get("text"), str)
                else part
                for part in value
            ]
    if isinstance(given.get("tool_calls"), list):
        checked["tool_calls"] = [tool_call(call, whole) for call in given["tool_calls"]]
    if isinstance(given.get("function_call"), dict):
        checked["function_call"] = _function(given["function_call"], whole)
    return checked


def tool_call(call: Any, whole: Whole) -> Any:
    """A tool call with its arguments checked."""
    if not isinstance(call, dict):
        return call
    checked = dict(call)
    if isinstance(call.get("function"), dict):
        checked["function"] = _function(call["function"], whole)
    custom = call.get("custom")
    if isinstance(custom, dict) and isinstance(custom.get("input"), str):
        checked["custom"] = {**custom, "input": whole(custom["input"])}
    return checked


def _function(function: dict[str, Any], whole: Whole) -> dict[str, Any]:
    arguments = function.get("arguments")
    return {**function, "arguments": within_json(arguments, whole)} if isinstance(arguments, str) else function


def _block(block: Any, whole: Whole) -> Any:
    if not isinstance(block, dict):
        return block
    checked = dict(block)
    for name in ("text", "thinking"):
        if isinstance(block.get(name), str):
            checked[name] = whole(block[name])
    if "input" in block:
        checked["input"] = within_value(block["input"], whole)
    return checked


def _item(item: Any, whole: Whole) -> Any:
    if not isinstance(item, dict):
        return item
    checked = dict(item)
    for name in ("content", "summary"):
        if isinstance(item.get(name), list):
            checked[name] = [_part(part, whole) for part in item[name]]
    if isinstance(item.get("arguments"), str):
        checked["arguments"] = within_json(item["arguments"], whole)
    if isinstance(item.get("input"), str):
        checked["input"] = whole(item["input"])
    return checked


def _part(part: Any, whole: Whole) -> Any:
    if not isinstance(part, dict):
        return part
    checked = dict(part)
    for name in ("text", "refusal"):
        if isinstance(part.get(name), str):
            checked[name] = whole(part[name])
    if checked != part and "logprobs" in checked:
        checked["logprobs"] = []
    return checked


def arguments_in(messages: Any, whole: Whole) -> tuple[Any, bool]:
    """A request's messages with the arguments of earlier tool calls checked, and whether any changed."""
    if not isinstance(messages, list):
        return messages, False
    checked = []
    for given in messages:
        one = given
        if isinstance(given, dict) and (given.get("tool_calls") or given.get("function_call")):
            calls = {name: given[name] for name in ("tool_calls", "function_call") if name in given}
            one = {**given, **message(calls, whole)}
        elif isinstance(given, dict) and isinstance(given.get("content"), list):
            content = [
                {**part, "input": within_value(part["input"], whole)}
                if isinstance(part, dict) and part.get("type") == "tool_use" and "input" in part
                else part
                for part in given["content"]
            ]
            one = {**given, "content": content}
        checked.append(one)
    return checked, checked != messages
