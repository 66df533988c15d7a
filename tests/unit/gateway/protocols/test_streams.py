"""Streams of every protocol, cut at every byte: what is read and what is passed on does not depend on the cuts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import LockgateError, UpstreamError
from lockgate.gateway.protocols.answers import document
from lockgate.gateway.protocols.chat_to_messages import MessagesAsChat
from lockgate.gateway.protocols.messages import MessagesTap
from lockgate.gateway.protocols.messages_to_chat import ChatAsMessages
from lockgate.gateway.protocols.model import Tap
from lockgate.gateway.protocols.responses import ResponsesTap
from lockgate.gateway.protocols.sse import Events, data_of
from lockgate.results import Usage
from lockgate.testing.protocols import message_events, response_events
from lockgate.testing.replies import ModelRequest, Reply, ToolCall, chunks

REPLY = Reply(
    text="Åre is\n\ncold",
    tool_calls=(ToolCall(name="weather", arguments={"city": "Åre"}, id="t1"),),
    usage=Usage(input_tokens=10, output_tokens=4, cached_tokens=6),
)
COUNTED = Usage(input_tokens=10, output_tokens=4, cached_tokens=6)


def asked(**body: Any) -> ModelRequest:
    return ModelRequest(path="", headers={}, body={"model": "m", "stream": True, **body})


ANTHROPIC = b"".join(message_events(asked(), REPLY))
RESPONSES = b"".join(response_events(asked(), REPLY))
CHAT = b"".join(chunks(asked(stream_options={"include_usage": True}), REPLY))
STREAMS: list[tuple[Callable[[], Tap], bytes]] = [
    (MessagesTap, ANTHROPIC),
    (ResponsesTap, RESPONSES),
    (lambda: MessagesAsChat(wants_usage=True), ANTHROPIC),
    (ChatAsMessages, CHAT),
]
NAMES = ["messages", "responses", "messages as chat", "chat as messages"]


def plain(data: bytes) -> bytes:
    """Without the one thing that depends on the clock."""
    events = Events().feed(data)
    return b"\n".join(
        json.dumps({**told, "created": 0}).encode() if (told := document(data_of(event))) else event for event in events
    )


@pytest.mark.parametrize(("make", "stream"), STREAMS, ids=NAMES)
def test_a_stream_in_two_pieces_is_the_stream_wherever_it_is_cut(make: Callable[[], Tap], stream: bytes) -> None:
    whole = make()
    expected = whole.feed(stream) + whole.finish()
    for at in range(len(stream) + 1):
        tap = make()
        assert plain(tap.feed(stream[:at]) + tap.feed(stream[at:]) + tap.finish()) == plain(expected)
        assert tap.outcome.usage == COUNTED
        assert tap.begun


@pytest.mark.parametrize(("make", "stream"), STREAMS, ids=NAMES)
def test_a_stream_that_breaks_off_anywhere_tells_no_usage_it_has_not_got(
    make: Callable[[], Tap], stream: bytes
) -> None:
    for at in range(len(stream)):
        tap = make()
        tap.feed(stream[:at])
        tap.finish()
        assert tap.outcome.usage in (None, COUNTED)
        if at < len(stream) // 2:
            assert tap.outcome.usage is None


@pytest.mark.parametrize(("make", "stream"), STREAMS[:2], ids=NAMES[:2])
def test_what_need_not_change_passes_byte_for_byte(make: Callable[[], Tap], stream: bytes) -> None:
    tap = make()
    assert b"".join(tap.feed(stream[at : at + 7]) for at in range(0, len(stream), 7)) + tap.finish() == stream


@given(
    st.sampled_from([make for make, _ in STREAMS]),
    st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda kind, value: b"data: " + json.dumps({"type": kind, **value}).encode() + b"\n\n",
            st.sampled_from(
                ["message_start", "message_delta", "content_block_start", "content_block_delta", "error", "x"]
            ),
            st.dictionaries(
                st.sampled_from(
                    ["message", "delta", "content_block", "index", "usage", "error", "choices", "response", "id"]
                ),
                st.recursive(
                    st.none() | st.integers() | st.text(max_size=4),
                    lambda inner: (
                        st.lists(inner, max_size=2)
                        | st.dictionaries(st.sampled_from(["type", "delta", "usage", "tool_calls", "function"]), inner)
                    ),
                    max_leaves=6,
                ),
                max_size=4,
            ),
        ),
        max_size=8,
    ),
)
def test_no_stream_crashes_a_reader(make: Callable[[], Tap], parts: list[bytes]) -> None:
    tap = make()
    try:
        for part in parts:
            tap.feed(part)
        tap.finish()
    except UpstreamError:
        pass
    except LockgateError as other:
        pytest.fail(f"not the provider's fault? {other}")


def test_an_error_inside_a_stream_is_seen() -> None:
    tap = MessagesTap()
    tap.feed(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n')
    assert tap.outcome.error == "Overloaded"
    responses = ResponsesTap()
    responses.feed(b'event: error\ndata: {"type":"error","message":"gone"}\n\n')
    assert responses.outcome.error == "gone"
    failed = ResponsesTap()
    failed.feed(b'data: {"type":"response.failed","response":{"id":"r","error":{"message":"no"}}}\n\n')
    assert failed.outcome.error == "no"


def test_data_of_an_event_is_joined_from_its_lines() -> None:
    assert data_of(b"data: a\n\n") == b"a"
    assert data_of(b"event: x\r\ndata: a\r\ndata:b\r\n\r\n") == b"a\nb"
    assert data_of(b": comment\n\n") == b""
