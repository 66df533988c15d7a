"""A batch's lines: no answer costs more than was held, and what is checked is what is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.gateway.batches.guarding import RequestLines
from lockgate.gateway.batches.lines import BatchInput, BatchOutput, model_asked
from lockgate.gateway.guardrails import schemas
from lockgate.gateway.guardrails.policy import compile_policy
from lockgate.limits.prices import Price, Rates

PRICE = Price(Rates(0, 3, 1, 7, 3, 7), tiers=(Rates(600, 5, 2, 9, 5, 9),), request=11)
URL = "/v1/chat/completions"


def line(text: str = "hi", *, model: str = "gpt", url: str = URL, **body: Any) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    return json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": asked}).encode() + b"\n"


def taken(data: bytes, *sizes: int) -> tuple[bytes, BatchInput]:
    batch = BatchInput("openai", "openai", lambda model, request: None, ["azure"])
    sent, at = b"", 0
    for size in (*sizes, len(data)):
        sent += batch.feed(data[at : at + size])
        at += size
    return sent + batch.finish(), batch


@given(
    st.lists(st.tuples(st.text(max_size=40), st.integers(1, 50), st.integers(1, 3)), min_size=1, max_size=5),
    st.lists(st.integers(1, 90), max_size=9),
)
def test_no_batch_costs_more_than_its_bound_however_its_bytes_come(
    asked: list[tuple[str, int, int]], sizes: list[int]
) -> None:
    data = b"".join(line(text, max_tokens=most, n=n) for text, most, n in asked)
    sent, batch = taken(data, *sizes)
    assert sent == taken(data)[0]
    output = BatchOutput(URL, "openai", PRICE)
    for one, (_, most, n) in zip(sent.splitlines(), asked, strict=True):
        usage = {"prompt_tokens": len(json.dumps(json.loads(one)["body"])) + 500, "completion_tokens": most * n}
        answer = {"custom_id": "a", "response": {"status_code": 200, "body": {"usage": usage}}, "error": None}
        output.feed(json.dumps(answer).encode() + b"\n")
    output.finish()
    assert output.used.answers == batch.counted.requests == len(asked)
    assert output.used.nano <= batch.counted.bound(PRICE)


def test_a_line_goes_on_as_it_was_checked() -> None:
    twice = line(model="openai/gpt").replace(b'"body": {', b'"body": {"model": "dear", "max_tokens": 9, ')
    sent, batch = taken(twice)
    assert sent.count(b'"model"') == sent.count(b'"max_tokens"') == 1
    assert (batch.counted.model, batch.counted.output_tokens) == ("gpt", 9)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (line() + line(model="other"), "line 2: 'model' is 'other'"),
        (line() + line(url="/v1/embeddings", input="x"), "line 2: 'url'"),
        (line(model="azure/gpt"), "goes to provider 'openai'"),
        (b'{"custom_id":"a","method":"GET","url":"/v1/chat/completions"}', "no POST with a body"),
        (b"[" * 100_000, "line 1: the body is no JSON object"),
        (b"\n\r\n\n", "holds no request"),
    ],
)
def test_a_wrong_line_is_named(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        taken(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_that_tells_nothing_or_one_that_does(noise: bytes) -> None:
    output = BatchOutput(URL, "openai", PRICE)
    output.feed(noise)
    output.finish()
    assert output.used.nano == 0
    assert model_asked(noise) is None


def test_a_line_is_asked_for_its_schema_once_also_where_it_is_guarded() -> None:
    guard = RequestLines(compile_policy(None, ((), [{"guard": "schema", "action": "block"}])))
    batch = BatchInput("openai", "openai", lambda model, request: None, guard=guard)
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "title": "once"}}}
    before = schemas._known.cache_info()
    batch.feed(line(response_format=form) * 3)
    after = schemas._known.cache_info()
    assert after.hits + after.misses - before.hits - before.misses == 3
    assert batch.counted.schema == form["json_schema"]["schema"]  # type: ignore[index]
