"""Answers in pieces go out as the whole answer would, wherever bytes and texts were cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.errors import Blocked, UpstreamError
from lockgate.gateway.guardrails.model import Outcome
from lockgate.gateway.guardrails.policy import Guard
from lockgate.gateway.guardrails.stages import Chain, outcomes_of
from lockgate.gateway.guardrails.streams import ChatStream, MessagesStream, ResponsesStream

REDACT = (Guard(guard="pii", action="redact"), Guard(guard="secrets", action="redact"))
TEXT = (
    'Write to "alice@example.com", call +49 30 901820. Card 4111 1111 1111 1111; key sk-abcdefghijklmnop12. Ünï 字 🚢'
)
CLEAN = 'Write to "[EMAIL]", call [PHONE]. Card [CARD]; key [KEY]. Ünï 字 🚢'
FOUND = ("alice@", "901820", "4111", "1111", "abcdefgh")


def checks(kind: Any, guards: tuple[Guard, ...] = REDACT, **options: Any) -> tuple[Any, list[Outcome]]:
    outcomes = outcomes_of(guards, "output")
    made = kind(lambda: Chain(guards, outcomes), lambda text: Chain(guards, outcomes).whole(text), **options)
    return made, outcomes


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def as_bytes(chunks: list[dict[str, Any]], *, ascii_only: bool = True) -> bytes:
    events = [f"data: {json.dumps(one, ensure_ascii=ascii_only)}\n\n".encode() for one in chunks]
    return b"".join(events) + b"data: [DONE]\n\n"


def pieces(text: str, sizes: list[int]) -> list[str]:
    found, place, turn = [], 0, 0
    while place < len(text):
        found.append(text[place : place + sizes[turn % len(sizes)]])
        place, turn = place + sizes[turn % len(sizes)], turn + 1
    return found


def read(out: bytes) -> list[dict[str, Any]]:
    events = [event.removeprefix(b"data: ") for event in out.split(b"\n\n") if event.startswith(b"data: ")]
    return [json.loads(event) for event in events if event != b"[DONE]"]


def content(out: bytes, name: str = "content", index: int = 0) -> str:
    choices = [choice for one in read(out) for choice in one["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(name) or "" for choice in choices)


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.integers(1, 900), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_stream_says_what_the_whole_would_however_it_is_cut(
    texts: list[int], reads: list[int], ascii_only: bool
) -> None:
    stream, _ = checks(ChatStream)
    deltas = [chunk({"role": "assistant", "content": ""})]
    deltas += [chunk({"content": piece}) for piece in pieces(TEXT, texts)] + [chunk({}, "stop")]
    sent, out, place, turn = as_bytes(deltas, ascii_only=ascii_only), b"", 0, 0
    while place < len(sent):
        size = reads[turn % len(reads)]
        out += stream.feed(sent[place : place + size])
        place, turn = place + size, turn + 1
    out += stream.finish()
    assert content(out) == CLEAN
    assert out.endswith(b"data: [DONE]\n\n")
    assert [choice["finish_reason"] for one in read(out) for choice in one["choices"]][-1] == "stop"


def test_no_prefix_of_the_bytes_lets_out_a_part_of_a_finding() -> None:
    sent = as_bytes([chunk({"content": piece}) for piece in pieces(TEXT, [3])] + [chunk({}, "stop")])
    for cut in range(0, len(sent), 11):
        stream, _ = checks(ChatStream)
        out = stream.feed(sent[:cut])
        assert CLEAN.startswith(content(out))


def test_a_stream_that_just_ends_still_gives_its_rest() -> None:
    stream, _ = checks(ChatStream)
    out = stream.feed(as_bytes([chunk({"content": "mail alice@exam"}), chunk({"content": "ple.com"})])[:-14])
    out += stream.finish()
    assert content(out) == "mail [EMAIL]"


def test_the_usage_event_and_the_role_pass() -> None:
    stream, _ = checks(ChatStream)
    usage = {**chunk({}), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    out = stream.feed(as_bytes([chunk({"role": "assistant", "content": ""}), chunk({"content": "hi"}, "stop"), usage]))
    out += stream.finish()
    assert read(out)[0]["choices"][0]["delta"]["role"] == "assistant"
    assert read(out)[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}


def test_choices_and_reasoning_are_texts_of_their_own() -> None:
    stream, _ = checks(ChatStream)
    both = {"id": "c1", "choices": [
        {"index": 0, "delta": {"content": "alice@", "reasoning_content": "card 4111 1111 "}, "finish_reason": None},
        {"index": 1, "delta": {"content": "bob@"}, "finish_reason": None},
    ]}  # fmt: skip
    ends = [
        chunk({"content": "example.com", "reasoning_content": "1111 1111"}, "stop"),
        chunk({"content": "x.org"}, "stop", 1),
    ]
    out = stream.feed(as_bytes([both, *ends])) + stream.finish()
    assert (content(out), content(out, index=1)) == ("[EMAIL]", "[EMAIL]")
    assert content(out, "reasoning_content") == "card [CARD]"


def test_arguments_of_tool_calls_wait_until_they_can_be_read() -> None:
    stream, _ = checks(ChatStream)
    arguments = json.dumps({"to": "alice@example.com", "card": 4111111111111111, "note": "ok"}).replace("@", "\\u0040")
    deltas = [
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "id": "t1", "type": "function", "function": {"name": "mail", "arguments": ""}}
                ]
            }
        )
    ]
    deltas += [
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces(arguments, [4])
    ]
    out = stream.feed(as_bytes([*deltas, chunk({}, "tool_calls")])) + stream.finish()
    (call,) = [call for one in read(out) for choice in one["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert (call["id"], call["function"]["name"], call["index"]) == ("t1", "mail", 0)
    assert json.loads(call["function"]["arguments"]) == {"to": "[EMAIL]", "card": "[CARD]", "note": "ok"}


def test_log_probabilities_do_not_say_it_all_again() -> None:
    stream, _ = checks(ChatStream)
    out = stream.feed(
        as_bytes([chunk({"content": "alice@example.com"}, "stop", logprobs={"content": [{"token": "alice"}]})])
    )
    assert b"alice" not in out + stream.finish()


def test_a_block_ends_the_stream_before_anything_of_it_is_out() -> None:
    guards = (Guard(guard="pii", action="block", kinds=("card",)),)
    stream, outcomes = checks(ChatStream, guards)
    sent = [as_bytes([chunk({"content": piece})])[:-14] for piece in pieces("the card 4111 1111 1111 1111 is", [5])]
    out = b"".join(stream.feed(event) for event in sent[:-2])
    with pytest.raises(Blocked, match="'card'"):
        stream.feed(sent[-2])
    assert content(out) == "the card "
    assert outcomes[0].action == "block"


def test_flagged_text_is_not_held_back() -> None:
    stream, outcomes = checks(ChatStream, (Guard(guard="pii", action="flag"),))
    out = stream.feed(as_bytes([chunk({"content": "alice@exam"})])[:-14])
    assert content(out) == "alice@exam"
    out += stream.feed(as_bytes([chunk({"content": "ple.com"}, "stop")])) + stream.finish()
    assert content(out) == "alice@example.com"
    assert outcomes[0].findings == {"email": 1}


def test_half_a_surrogate_pair_is_no_reason_to_end_a_stream() -> None:
    stream, _ = checks(ChatStream)
    out = stream.feed(b'data: {"choices":[{"index":0,"delta":{"content":"a \\ud83d "},"finish_reason":"stop"}]}\n\n')
    assert b"\\ud83d" in out + stream.finish()


@pytest.mark.parametrize("event", [b"data: {broken\n\n", b"data: [1]\n\n", b"data: " + b"[" * 100_000 + b"\n\n"])
def test_what_cannot_be_read_does_not_pass(event: bytes) -> None:
    stream, _ = checks(ChatStream)
    with pytest.raises(UpstreamError):
        stream.feed(event)


def test_comments_and_errors_pass() -> None:
    stream, _ = checks(ChatStream)
    sent = b': ping\n\ndata: {"error": {"message": "overloaded"}}\n\n'
    assert stream.feed(sent) == sent


def test_a_stream_that_is_held_gives_nothing_before_its_end() -> None:
    stream, _ = checks(ChatStream, hold=True)
    sent = as_bytes([chunk({"content": "fine"}, "stop")])
    assert stream.feed(sent) == b""
    assert content(stream.finish()) == "fine"


# --- the other protocols --------------------------------------------------------------------------------------


def message_events(text: str, size: int) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in pieces(text, [size])
    ]
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "mail", "input": {}},
        },
    ]
    events += [
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": piece}}
        for piece in pieces('{"to": "alice@example.com"}', [size])
    ]
    events += [{"type": "content_block_stop", "index": 1}, {"type": "message_stop"}]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


@pytest.mark.parametrize("size", [1, 3, 8, 200])
def test_messages_are_checked_block_by_block(size: int) -> None:
    stream, _ = checks(MessagesStream)
    out = stream.feed(message_events(TEXT, size)) + stream.finish()
    events = [json.loads(event.split(b"data: ", 1)[1]) for event in out.split(b"\n\n") if event]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == CLEAN
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"to": "[EMAIL]"}
    assert [event["type"] for event in events][-1] == "message_stop"


@pytest.mark.parametrize("size", [1, 4, 200])
def test_responses_say_it_twice_and_both_times_redacted(size: int) -> None:
    stream, _ = checks(ResponsesStream)
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    item = {"type": "message", "content": [{"type": "output_text", "text": TEXT}]}
    events = [{"type": "response.output_text.delta", **place, "delta": piece} for piece in pieces(TEXT, [size])]
    events += [
        {"type": "response.output_text.done", **place, "text": TEXT},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "output": [item]}},
    ]
    sent = b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)
    out = stream.feed(sent) + stream.finish()
    read_back = [json.loads(event.split(b"data: ", 1)[1]) for event in out.split(b"\n\n") if event]
    assert "".join(event.get("delta", "") for event in read_back) == CLEAN
    assert read_back[-1]["response"]["output"][0]["content"][0]["text"] == CLEAN
    assert not any(part.encode() in out for part in FOUND)
