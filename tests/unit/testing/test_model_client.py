"""The model in process answers and fails as a provider does."""

from __future__ import annotations

import pytest

from lockgate.errors import UpstreamError
from lockgate.results import Usage
from lockgate.testing import FakeModel, Reply, call, closing, failing, hanging
from lockgate.versions.model import ModelRef

MODEL = ModelRef(provider="house", name="m-1")
BODY = {"messages": [{"role": "user", "content": "hi"}]}


async def test_it_answers_with_usage_and_cost() -> None:
    model = FakeModel(
        Reply(text="hello", usage=Usage(input_tokens=3, output_tokens=4)), price=lambda usage: usage.total_tokens * 10
    )
    answer = await model.complete(MODEL, BODY, timeout=1)
    assert (answer.message["content"], answer.cost_nano, answer.finish_reason) == ("hello", 70, "stop")
    assert model.requests[0].last_user == "hi"


async def test_it_asks_for_tools() -> None:
    answer = await FakeModel([call("f", x=1)]).complete(MODEL, BODY, timeout=1)
    assert answer.message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert answer.finish_reason == "tool_calls"


async def test_it_fails_as_told() -> None:
    with pytest.raises(UpstreamError) as failed:
        await FakeModel(failing(503, "down")).complete(MODEL, BODY, timeout=1)
    assert (failed.value.upstream_status, failed.value.sent) == (503, True)
    with pytest.raises(UpstreamError) as cut:
        await FakeModel(closing()).complete(MODEL, BODY, timeout=1)
    assert cut.value.upstream_status is None


async def test_it_never_waits_past_the_timeout() -> None:
    for answer in (hanging(), Reply(text="late", latency=30)):
        with pytest.raises(TimeoutError):
            await FakeModel(answer).complete(MODEL, BODY, timeout=0.01)
