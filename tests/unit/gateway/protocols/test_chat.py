"""Chat completions taken apart and put together: nothing is smuggled, nothing is lost."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError, UpstreamError
from lockgate.gateway.protocols import sse
from lockgate.gateway.protocols.chat import ChatPassage, read_answer, read_models
from lockgate.gateway.protocols.chat import ChatTap as StreamTap
from lockgate.gateway.protocols.passages import CHAT
from lockgate.results import Usage

MESSAGES = [{"role": "user", "content": "hi"}]


PASSAGE = ChatPassage()


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "openai/gpt-4o", "messages": MESSAGES, **fields}).encode()


# --- requests -------------------------------------------------------------------------------------------------


def test_what_is_not_used_passes_as_it_was_written() -> None:
    messages = b'"messages":[{"role":"user","content":"\\u00e9 1.0e2"}]'
    body = b'{"model":"openai/gpt-4o",' + messages + b',"seed":1.50,"max_tokens":5}'
    sent = PASSAGE.forward(CHAT.read(body), "gpt-4o", 100)
    assert messages in sent
    assert b'"seed":1.50' in sent


def test_a_model_named_twice_is_forwarded_once_with_the_value_that_was_checked() -> None:
    body = b'{"model":"openai/cheap","messages":[],"model":"openai/dear","max_tokens":1,"max_tokens":9}'
    call = CHAT.read(body)
    sent = PASSAGE.forward(call, "dear", 100)
    assert call.model == "openai/dear"
    assert sent.count(b'"model"') == 1
    assert sent.count(b'"max_tokens"') == 1
    assert json.loads(sent) == {"model": "dear", "messages": [], "max_tokens": 9}


def test_a_key_spelled_with_escapes_is_the_same_key() -> None:
    call = CHAT.read(b'{"model":"openai/cheap","messages":[],"mod\\u0065l":"openai/dear"}')
    assert call.model == "openai/dear"
    assert json.loads(PASSAGE.forward(call, "dear", 1))["model"] == "dear"


def test_a_tool_named_twice_is_forwarded_with_the_name_that_was_looked_at() -> None:
    call = CHAT.read(b'{"model":"openai/gpt-4o","messages":[],"tools":[{"name":"g","name":"f"}]}')
    assert call.offered() == ["f"]
    assert b'"g"' not in PASSAGE.forward(call, "gpt-4o", 1)


@pytest.mark.parametrize(
    ("given", "model", "expected"),
    [
        ({}, "gpt-4o", {"max_tokens": 100}),
        ({"max_tokens": None}, "gpt-4o", {"max_tokens": 100}),
        ({}, "o3-mini", {"max_completion_tokens": 100}),
        ({}, "gpt-5-mini", {"max_completion_tokens": 100}),
        ({"max_tokens": 7}, "gpt-4o", {"max_tokens": 7}),
        ({"max_completion_tokens": 7}, "o3", {"max_completion_tokens": 7}),
    ],
)
def test_output_is_bounded_when_the_caller_did_not(given: dict[str, Any], model: str, expected: dict[str, int]) -> None:
    sent = json.loads(PASSAGE.forward(CHAT.read(chat(**given)), model, 100))
    found = {name: sent[name] for name in ("max_tokens", "max_completion_tokens") if sent.get(name) is not None}
    assert found == expected


def test_two_bounds_count_as_the_larger() -> None:
    assert CHAT.read(chat(max_tokens=5, max_completion_tokens=50)).max_tokens == 50


def test_a_stream_asks_for_usage_and_keeps_the_other_options() -> None:
    call = CHAT.read(chat(stream=True, stream_options={"include_obfuscation": False}))
    assert not call.wants_usage
    sent = json.loads(PASSAGE.forward(call, "gpt-4o", 100))
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_call_that_does_not_stream_gets_no_stream_options() -> None:
    assert "stream_options" not in json.loads(PASSAGE.forward(CHAT.read(chat()), "gpt-4o", 100))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff\xfe", "no JSON object"),
        (b'{"model":"a/b"}', "'messages'"),
        (b'{"messages":[]}', "'model'"),
        (b'{"model":7,"messages":[]}', "'model' is '7'"),
        (chat(model="a/" + "b" * 300), "302 characters"),
        (b'{"model":"a/b","messages":[],"n":0}', "'n' is 0"),
        (b'{"model":"a/b","messages":[],"n":"3"}', "'n'"),
        (b'{"model":"a/b","messages":[],"max_tokens":-1}', "'max_tokens' is -1"),
        (b'{"model":"a/b","messages":[],"max_tokens":1.5}', "'max_tokens'"),
        (b'{"model":"a/b","messages":[],"max_tokens":20000000000000000000}', "'max_tokens' is 20000000000000000000"),
        (b'{"model":"a/b","messages":[],"stream":"yes"}', "'stream'"),
        (b'{"model":"a/b","messages":[],"stream_options":3}', "'stream_options'"),
    ],
)
def test_a_wrong_request_is_named(body: bytes, named: str) -> None:
    with pytest.raises(InputError) as raised:
        CHAT.read(body)
    assert named in raised.value.message


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(InputError):
        CHAT.read(b'{"model":"a/b","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@given(st.binary(max_size=200))
def test_no_body_crashes_the_reader(body: bytes) -> None:
    for candidate in (body, b'{"model":"a/b","messages":' + body + b"}"):
        try:
            call = CHAT.read(candidate)
        except InputError:
            continue
        assert json.loads(PASSAGE.forward(call, "b", 1).decode("utf-8", "replace"))["model"] == "b"


def test_images_and_files_by_reference_are_counted() -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, {"type": "text", "text": "?"}]
    assert CHAT.read(chat()).references == 0
    assert CHAT.read(chat(messages=[{"role": "user", "content": content}])).references >= 1


# --- answers --------------------------------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
COUNTED = Usage(input_tokens=10, output_tokens=4, cached_tokens=6, reasoning_tokens=3)


def test_an_answer_says_what_was_used() -> None:
    body = json.dumps({"id": "c1", "model": "gpt", "choices": [{"finish_reason": "stop"}], "usage": USAGE}).encode()
    outcome = read_answer(body)
    assert (outcome.usage, outcome.id, outcome.model, outcome.finish_reasons) == (COUNTED, "c1", "gpt", ["stop"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"error":{"message":"no"}}',
        b'{"usage":null}',
        b'{"usage":{}}',
        b'{"usage":{"prompt_tokens":-5}}',
        b'{"usage":{"prompt_tokens":"5"}}',
    ],
)
def test_an_answer_without_usage_has_an_unknown_outcome(body: bytes) -> None:
    assert read_answer(body).usage is None


def test_more_cached_tokens_than_tokens_are_not_believed() -> None:
    usage = read_answer(b'{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":50}}}').usage
    assert usage == Usage(input_tokens=5, cached_tokens=5)


def test_models_are_read_leniently() -> None:
    assert read_models(b'{"object":"list","data":[{"id":"a","x":1},{"id":"b"}]}') == ["a", "b"]
    assert read_models(b"<html>") == []


# --- streams --------------------------------------------------------------------------------------------------


def event(value: Any, end: bytes = b"\n\n", separators: tuple[str, str] = (",", ":")) -> bytes:
    return b"data: " + json.dumps(value, separators=separators).encode() + end


def piece(content: str, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "gpt", "choices": [{"delta": {"content": content}}], **fields}


LAST = {"id": "c1", "model": "gpt", "choices": [{"delta": {}, "finish_reason": "stop"}]}
ONLY_USAGE = {"id": "c1", "model": "gpt", "choices": [], "usage": USAGE}
DONE = b"data: [DONE]\n\n"
NULLS = [event({**part, "usage": None}) for part in (piece("a"), piece('b\n\n","usage":null'), LAST)]
WITH_USAGE = b"".join([*NULLS, event(ONLY_USAGE), DONE])
WITHOUT = b"".join([*(event(part) for part in (piece("a"), piece('b\n\n","usage":null'), LAST)), DONE])


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    return sorted(draw(st.lists(st.integers(0, len(WITH_USAGE)), max_size=8)))


def through(tap: StreamTap, data: bytes, at: list[int]) -> bytes:
    edges = [0, *at, len(data)]
    passed = [tap.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    return b"".join(passed) + tap.finish()


@given(cuts())
def test_a_client_that_asked_for_usage_gets_every_byte_wherever_the_stream_is_cut(at: list[int]) -> None:
    tap = StreamTap(hide_usage=False)
    assert through(tap, WITH_USAGE, at) == WITH_USAGE
    assert tap.outcome.usage == COUNTED
    assert tap.outcome.finish_reasons == ["stop"]


@given(cuts())
def test_a_client_that_did_not_ask_gets_the_stream_as_it_would_have_been(at: list[int]) -> None:
    tap = StreamTap(hide_usage=True)
    assert through(tap, WITH_USAGE, at) == WITHOUT
    assert tap.outcome.usage == COUNTED


@given(cuts())
def test_carriage_returns_and_spaces_change_nothing(at: list[int]) -> None:
    def lines(parts: list[Any]) -> bytes:
        return b"".join(event(part, b"\r\n\r\n", (", ", ": ")) for part in parts)

    tap = StreamTap(hide_usage=True)
    parts = [{**piece("a"), "usage": None}, LAST, ONLY_USAGE]
    assert through(tap, lines(parts), [cut // 2 for cut in at]) == lines([piece("a"), LAST])
    assert tap.outcome.usage == COUNTED


def test_each_event_is_passed_on_as_soon_as_it_is_whole() -> None:
    tap = StreamTap(hide_usage=True)
    first = event(piece("a"))
    assert tap.feed(first[:-1]) == b""
    assert tap.feed(first[-1:]) == first


def test_usage_that_comes_with_the_last_words_is_read_and_passed_on() -> None:
    tap = StreamTap(hide_usage=True)
    both = event({**LAST, "usage": USAGE})
    assert tap.feed(both) == both
    assert tap.outcome.usage == COUNTED


def test_a_stream_that_breaks_off_keeps_its_last_bytes() -> None:
    tap = StreamTap(hide_usage=True)
    whole, part = event(piece("a")), event(piece("b"))[:20]
    assert tap.feed(whole + part) + tap.finish() == whole + part
    assert tap.outcome.usage is None


def test_a_stream_without_a_final_blank_line_still_tells_its_usage() -> None:
    tap = StreamTap(hide_usage=True)
    assert tap.feed(event(ONLY_USAGE)[:-2]) + tap.finish() == b""
    assert tap.outcome.usage == COUNTED


def test_an_endless_event_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    tap = StreamTap(hide_usage=False)
    tap.feed(b"x" * 1000)
    with pytest.raises(UpstreamError):
        tap.feed(b"x")


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_crash_the_tap_and_none_are_lost_without_hiding(chunks: list[bytes]) -> None:
    for hide in (False, True):
        tap = StreamTap(hide_usage=hide)
        passed = b"".join(tap.feed(chunk) for chunk in chunks) + tap.finish()
        if not hide:
            assert passed == b"".join(chunks)


def test_the_fingerprint_of_the_provider_is_read_from_answers_and_streams() -> None:
    assert read_answer(b'{"model":"m","system_fingerprint":"fp_1"}').fingerprint == "fp_1"
    tap = StreamTap(hide_usage=False)
    tap.feed(b'data: {"id":"c","model":"m","system_fingerprint":"fp_2","choices":[]}\n\n')
    assert tap.outcome.fingerprint == "fp_2"
