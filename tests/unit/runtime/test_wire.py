from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import LimitExceeded, Refused, UpstreamError
from lockgate.results import Usage
from lockgate.runtime.wire import completion_of, failure_of, usage_of
from lockgate.versions.model import ModelRef

MODEL = ModelRef(provider="p", name="m")


def test_a_completion_has_message_usage_cost_and_the_model_that_answered() -> None:
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    choice = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    body = msgspec.json.encode({"choices": [choice], "usage": usage, "model": "m-2026"})
    found = completion_of(body, {"x-lockgate-cost-usd": "0.000000123"}, MODEL)
    assert found.usage == Usage(input_tokens=12, output_tokens=3, cached_tokens=4, reasoning_tokens=1)
    assert (found.cost_nano, found.model_served, found.finish_reason) == (123, "m-2026", "stop")


@pytest.mark.parametrize(
    ("headers", "stands_in"),
    [
        ({}, False),
        ({"x-lockgate-route": "model; tag", "x-lockgate-cache": "miss"}, False),
        ({"x-lockgate-route": "triage; tokens"}, True),
        ({"x-lockgate-cache": "exact"}, True),
    ],
)
def test_an_answer_of_triages_model_or_of_the_cache_does_not_tell_what_is_served(
    headers: dict[str, str], stands_in: bool
) -> None:
    body = msgspec.json.encode({"choices": [{"message": {}}], "model": "small"})
    assert completion_of(body, headers, MODEL).stands_in is stands_in


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [1]}', b"\xff\xfe"])
def test_an_answer_that_is_no_completion_is_an_upstream_error(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="no chat completion"):
        completion_of(body, {}, MODEL)


@pytest.mark.parametrize("cost", ["", "free", "-1", "NaN", "Infinity", None])
def test_a_cost_that_is_no_amount_counts_nothing(cost: str | None) -> None:
    body = b'{"choices": [{"message": {"content": "hi"}}]}'
    headers = {} if cost is None else {"x-lockgate-cost-usd": cost}
    assert completion_of(body, headers, MODEL).cost_nano == 0


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x), max_leaves=5))
def test_usage_of_anything_is_a_usage(value: Any) -> None:
    assert usage_of(value).total_tokens >= 0


@pytest.mark.parametrize(
    ("status", "headers", "error", "kind", "retry_after"),
    [
        (429, {"x-should-retry": "false"}, {"code": "limit_exceeded", "limit": "run:r"}, LimitExceeded, None),
        (429, {"retry-after": "7"}, {"code": "limit_exceeded", "limit": "rate"}, LimitExceeded, 7.0),
        (429, {}, {"code": "rate_limit", "message": "slow down"}, UpstreamError, None),
        (401, {}, {"message": "who?"}, Refused, None),
        (403, {}, {"message": "no"}, Refused, None),
        (500, {}, {"message": "oops"}, UpstreamError, None),
    ],
)
def test_an_error_answer_is_an_error_of_its_kind(
    status: int, headers: dict[str, str], error: dict[str, Any], kind: type[Exception], retry_after: float | None
) -> None:
    found = failure_of(status, headers, msgspec.json.encode({"error": error}), MODEL)
    assert type(found) is kind
    assert getattr(found, "retry_after", None) == retry_after
    assert str(error.get("message", "")) in str(found)


def test_an_error_says_whether_the_request_was_sent_when_the_gateway_knows() -> None:
    assert failure_of(502, {"x-lockgate-cost-usd": "0.000002"}, b"{}", MODEL).paid_nano == 2000
    unsent = failure_of(502, {}, b'{"error": {"message": "down", "sent": false}}', MODEL)
    unknown = failure_of(502, {}, b"Bad Gateway", MODEL)
    assert isinstance(unsent, UpstreamError)
    assert isinstance(unknown, UpstreamError)
    assert (unsent.sent, unknown.sent, "Bad Gateway" in str(unknown)) == (False, True, True)
