"""Which texts of an answer a schema binds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lockgate.errors import UpstreamError
from lockgate.gateway.guardrails.schemas import said_texts


def _choice(message: dict[str, Any] | None, finish_reason: str = "stop") -> dict[str, Any]:
    return {"index": 0, "message": message, "finish_reason": finish_reason}


@pytest.mark.parametrize(
    ("dialect", "answer", "said"),
    [
        ("chat", {"choices": [_choice({"content": "one"}), _choice({"content": "two"})]}, ["one", "two"]),
        ("chat", {"choices": [_choice({"content": "cut"}, "length"), _choice({"content": "two"})]}, ["two"]),
        ("chat", {"choices": [_choice({"content": "", "tool_calls": [{"id": "c"}]}), _choice(None)]}, []),
        ("chat", {"choices": [_choice({"content": "no", "refusal": "I will not"})]}, []),
        ("chat", {"choices": [_choice({"content": [{"type": "text", "text": "parts"}], "tool_calls": []})]}, []),
        ("chat", {"choices": None}, []),
        ("messages", {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ["ab"]),
        ("messages", {"content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}]}, ["a"]),
        ("messages", {"content": [{"type": "text", "text": "a"}], "stop_reason": "tool_use"}, []),
        ("messages", {}, []),
        ("responses", {"output": [{"type": "message", "content": [{"text": "a"}, {"text": "b"}]}]}, ["ab"]),
        ("responses", {"output": [{"type": "message", "content": [{"text": "a"}]}], "status": "incomplete"}, []),
        ("responses", {"output": [{"type": "function_call"}, {"type": "message", "content": [{"text": "a"}]}]}, []),
        ("responses", {"output": [{"type": "new_kind", "content": "of its own"}]}, []),
    ],
)
def test_the_texts_that_are_answers_are_bound(dialect: str, answer: dict[str, Any], said: list[str]) -> None:
    assert said_texts(dialect, json.dumps({"id": "x", **answer}).encode()) == said


def test_half_of_a_surrogate_pair_does_not_exempt_an_answer() -> None:
    assert said_texts("chat", b'{"choices": [{"message": {"content": "\\ud83d"}}], "score": NaN}') == ["\ud83d"]


@pytest.mark.parametrize("body", [b"<html>", b'{"choices": "none"}', b'{"choices": [{"message": "no object"}]}', b"[]"])
def test_an_answer_without_the_shape_of_its_protocol_cannot_be_checked(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="cannot be checked"):
        said_texts("chat", body)
