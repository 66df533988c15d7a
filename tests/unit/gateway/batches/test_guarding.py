"""Answers of a batch through the checks: the same however their bytes come, and nothing passes that cannot be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import Refused
from lockgate.gateway.batches.guarding import Terms, answer_lines
from lockgate.gateway.guardrails.policy import Policy, compile_policy

CHAT = "/v1/chat/completions"


def policy(*output: dict[str, Any], canary: str = "") -> Policy:
    return compile_policy(None, ((), output), canary=canary)


def line(text: Any, number: int = 0, *, status: int = 200) -> bytes:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    response = {"status_code": status, "request_id": "q", "body": body}
    return json.dumps({"id": f"b{number}", "custom_id": f"r{number}", "response": response, "error": None}).encode()


def through(data: bytes, sizes: list[int], wanted: Policy, terms: Terms | None = None) -> bytes:
    lines = answer_lines(wanted, CHAT, terms or Terms())
    assert lines is not None
    out, at = b"", 0
    for size in (*sizes, len(data)):
        out += lines.feed(data[at : at + size])
        at += size
    return out + lines.finish()


PII = policy({"guard": "pii", "action": "redact"})
BLOCK = policy({"guard": "pii", "action": "block"})


@given(
    st.lists(st.sampled_from(["all is well", "ask bob@example.com", "née \ud800"]), min_size=1, max_size=4),
    st.lists(st.integers(1, 90), max_size=9),
    st.booleans(),
)
def test_however_the_bytes_come_each_line_is_checked_once_and_clean_ones_stay_as_they_were(
    texts: list[str], sizes: list[int], ends: bool
) -> None:
    data = b"\n".join(line(text, number) for number, text in enumerate(texts)) + (b"\n" if ends else b"")
    out = through(data, sizes, PII)
    assert out.endswith(b"\n") == ends
    for before, after, text in zip(data.splitlines(), out.splitlines(), texts, strict=True):
        if "bob" in text:
            assert b"ask [EMAIL]" in after
        else:
            assert before == after


@pytest.mark.parametrize(
    "unreadable",
    [
        b"bob@example.com",
        b'["bob@example.com"]',
        b'{"custom_id": "r0", "body": "bob@example.com"}',
        b'{"custom_id": "r0", "response": "bob@example.com"}',
        b'{"custom_id": "r0", "response": {"status_code": 200, "body": "bob@example.com"}}',
        b'{"custom_id": "r0", "error": %s"bob@example.com"%s}' % (b"[" * 900, b"]" * 900),
    ],
)
def test_a_line_that_cannot_be_read_does_not_pass(unreadable: bytes) -> None:
    told = json.loads(through(unreadable + b"\n" + line("fine"), [], PII).splitlines()[0])
    assert told["response"] is None
    assert told["error"]["code"] in ("upstream_error", "refused")
    assert "bob" not in json.dumps(told)


def test_a_line_that_is_stopped_is_an_error_of_its_own_and_the_others_go_on() -> None:
    first, second = through(line("ask bob@example.com", 1) + b"\n" + line("fine", 2), [], BLOCK).splitlines()
    told = json.loads(first)
    assert (told["id"], told["custom_id"], told["response"]) == ("b1", "r1", None)
    assert (told["error"]["code"], "'email'" in told["error"]["message"]) == ("guardrail_blocked", True)
    assert second == line("fine", 2)


EXPIRED: dict[str, Any] = {"id": "b", "custom_id": "bob@example.com", "response": None}


def failed(said: Any, status: int = 400) -> bytes:
    response = {"status_code": status, "request_id": "q", "body": said}
    return json.dumps({**EXPIRED, "response": response, "error": None}).encode()


def late(said: str) -> bytes:
    return json.dumps({**EXPIRED, "error": {"code": "batch_expired", "message": said}}).encode()


@pytest.mark.parametrize("wanted", [PII, BLOCK])
def test_a_providers_error_in_which_nothing_is_found_passes_as_it_is(wanted: Policy) -> None:
    for told in (late("late"), failed({"error": {"message": "no", "param": None, "code": 7}}), failed(None), b" "):
        assert through(told, [], wanted) == told


@pytest.mark.parametrize(
    "told",
    [
        late("no answer to bob@example.com"),
        failed({"error": {"message": "'bob@example.com' is no role", "type": "invalid_request_error"}}),
        failed({"detail": [{"loc": ["bob@example.com"]}], "bob@example.com": 1}, 422),
        failed("<p>bob@example.com</p>", 503),
        failed({"choices": [{"text": "bob@example.com"}]}, 302),
        failed({"error": {"message": "bob@example.com"}}, 200),
    ],
)
def test_a_providers_error_that_repeats_what_it_was_asked_is_checked_as_an_answer_is(told: bytes) -> None:
    before, after = json.loads(told), json.loads(through(told, [], PII))
    assert after.pop("custom_id") == "bob@example.com"  # the client's own
    assert "bob" not in json.dumps(after)
    assert "[EMAIL]" in json.dumps(after)
    assert (after["response"] or {}).get("status_code") == (before["response"] or {}).get("status_code")
    stopped = json.loads(through(told, [], BLOCK))
    assert (stopped["response"], stopped["error"]["code"]) == (None, "guardrail_blocked")


def test_errors_of_embeddings_are_checked_and_the_embeddings_stay() -> None:
    lines = answer_lines(PII, "/v1/embeddings", Terms())
    assert lines is not None
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1e-9]}]}
    numbers = failed(body, 200)
    assert lines.feed(numbers + b"\n") == numbers + b"\n"
    assert b"[EMAIL]" in lines.feed(failed({"error": {"message": "bob@example.com"}}) + b"\n")


def test_the_canary_that_was_planted_is_looked_for_whichever_machine_planted_it() -> None:
    canary = policy({"guard": "canary", "action": "redact"}, canary="lgc-mine")
    out = through(line("it is lgc-theirs"), [], canary, Terms(canary="lgc-theirs"))
    assert b"it is [CANARY]" in out
    assert canary.lines == canary.with_planted("lgc-theirs").lines != ""


def test_answers_to_different_schemas_cannot_be_checked() -> None:
    with pytest.raises(Refused, match="the same schema"):
        answer_lines(policy({"guard": "schema", "action": "flag"}), CHAT, Terms(one_schema=False))
