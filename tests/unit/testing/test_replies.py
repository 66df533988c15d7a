"""What a scripted answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.results import Usage
from lockgate.testing import ModelRequest, Reply, call, failing, rate_limited
from lockgate.testing.replies import chunks, completion, reply_of, responder_of, usage_of


def request(**body: Any) -> ModelRequest:
    return ModelRequest(path="/v1/chat/completions", headers={}, body=body)


@pytest.mark.parametrize(
    ("given_value", "reply"),
    [
        ("hi", Reply(text="hi")),
        ({"a": "é"}, Reply(text='{"a": "é"}')),
        ([1, 2], Reply(text="[1, 2]")),
        (None, Reply(text="null")),
        (call("f", x=1), Reply(tool_calls=(call("f", x=1),))),
        ([call("f"), call("g")], Reply(tool_calls=(call("f"), call("g")))),
        (RuntimeError("oops"), failing(500, "oops")),
        (rate_limited(2), Reply(status=429, error="rate limit reached", headers={"retry-after": "2"})),
    ],
)
def test_a_plain_value_becomes_a_reply(given_value: Any, reply: Reply) -> None:
    assert reply_of(given_value) == reply


def test_a_list_is_answered_in_turn_and_one_value_for_ever() -> None:
    in_turn, same = responder_of(["a", "b"]), responder_of("a")
    assert [in_turn(request()), in_turn(request())] == ["a", "b"]
    assert in_turn(request()).status == 500
    assert {same(request()) for _ in range(5)} == {"a"}


def test_the_last_user_message_is_found_in_texts_and_in_parts() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": "no"},
    ]
    assert request(messages=messages).last_user.strip() == "see"
    assert request(messages=[]).last_user == ""


def test_usage_is_what_was_told_or_the_words() -> None:
    asked = request(messages=[{"role": "user", "content": "one two three"}])
    assert usage_of(asked, Reply(text="four five")) == Usage(input_tokens=3, output_tokens=2)
    assert usage_of(asked, Reply(usage=Usage(input_tokens=9))) == Usage(input_tokens=9)


def test_a_server_that_does_not_report_usage_leaves_it_out() -> None:
    assert "usage" not in completion(request(), Reply(text="a", report_usage=False))


@given(st.text())
def test_a_stream_joins_to_the_text(text: str) -> None:
    events = b"".join(chunks(request(model="m"), Reply(text=text))).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    deltas = [json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"] for event in events[:-2]]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
