from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lockgate.errors import LimitExceeded, Refused, Unavailable, UpstreamError
from lockgate.results import RunResult, Usage
from lockgate.runtime.local import LocalRunner
from lockgate.runtime.native import read_answer
from lockgate.testing import FakeModel, Reply, ToolCall, call, failing, hanging
from lockgate.versions.model import AgentVersion, ModelRef, ToolContract

Make = Callable[..., AgentVersion]


@pytest.fixture
def run(workshop: Any, make_version: Make) -> Callable[..., Any]:
    async def run(responses: Any, input: Any = "hello", *, fixtures: Any = (), **fields: Any) -> RunResult:
        model = responses if isinstance(responses, FakeModel) else FakeModel(responses)
        timeout = fields.pop("model_timeout", 5.0)
        runner = LocalRunner(make_version(**fields), model, workshop.folder, model_timeout=timeout)
        return await runner.run(input, fixtures=fixtures)

    return run


async def test_a_text_answer_is_the_output(run: Any) -> None:
    result = await run("It is on its way.")
    assert (result.status, result.output, result.model_calls) == ("completed", "It is on its way.", 1)


async def test_the_model_sees_the_system_prompt_then_the_input(run: Any) -> None:
    model = FakeModel("ok")
    await run(model, "where is it?")
    assert model.requests[0].messages == [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "where is it?"},
    ]


async def test_a_conversation_is_passed_on_without_fields_the_model_has_no_business_with(run: Any) -> None:
    model = FakeModel("ok")
    conversation = [{"role": "user", "content": "hi", "name": "x"}, {"role": "assistant", "content": "yes?"}]
    await run(model, {"messages": [*conversation, {"role": "user", "content": "where?"}]})
    assert [m["content"] for m in model.requests[0].messages] == ["You help.", "hi", "yes?", "where?"]
    assert "name" not in model.requests[0].messages[1]


@pytest.mark.parametrize(
    "input",
    [
        7,
        None,
        {},
        {"messages": []},
        {"messages": ["hi"]},
        {"messages": [{"role": "system", "content": "You obey."}]},
        {"messages": [{"role": "user"}]},
    ],
)
async def test_an_input_that_is_no_conversation_fails_before_the_model_is_asked(run: Any, input: Any) -> None:
    model = FakeModel("ok")
    result = await run(model, input)
    assert (result.status, result.error_type, model.requests) == ("failed", "input_invalid", [])


async def test_a_tool_result_goes_back_to_the_model(run: Any, workshop: Any) -> None:
    model = FakeModel([call("read_order", order_id="A-1"), "A kettle."])
    result = await run(model)
    assert result.output == "A kettle."
    assert workshop.calls == ["read A-1"]
    assert model.requests[1].messages[-1] == {
        "role": "tool",
        "tool_call_id": "call_0",
        "content": '{"id":"A-1","item":"kettle","price":40}',
    }
    assert [(use.name, use.result["item"]) for use in result.tools_used] == [("read_order", "kettle")]


async def test_several_tool_calls_of_one_answer_are_made_in_order(run: Any, workshop: Any) -> None:
    both = [call("read_order", order_id="A-1"), call("read_order", order_id="A-2")]
    result = await run([both, "done"])
    assert workshop.calls == ["read A-1", "read A-2"]
    assert len(result.tools_used) == 2


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (call("no_such_tool"), "unknown_tool"),
        (call("named_only"), "unknown_tool"),
        (call("read_order", order_id=7), "invalid_arguments"),
        (call("read_order"), "invalid_arguments"),
        (call("read_order", order_id="missing"), "tool_failed"),
        (call("slow"), "tool_timeout"),
        (call("odd_read"), "invalid_result"),
        (call("huge"), "invalid_result"),
    ],
)
async def test_a_tool_call_that_fails_tells_the_model_why(run: Any, asked: ToolCall, word: str) -> None:
    model = FakeModel([asked, "Sorry."])
    result = await run(model)
    assert result.status == "completed"
    assert f'"error":"{word}"' in model.requests[1].messages[-1]["content"]
    assert result.tools_used[0].error


async def test_arguments_that_are_no_json_are_refused_by_the_contract(run: Any) -> None:
    broken = {"id": "c1", "type": "function", "function": {"name": "read_order", "arguments": "{order"}}
    model = _raw([{"content": None, "tool_calls": [broken]}, {"content": "Sorry."}])
    result = await run(model)
    assert (result.status, result.tools_used[0].arguments) == ("completed", "{order")
    assert "invalid_arguments" in model.requests[1].messages[-1]["content"]


async def test_a_write_is_an_intention_here_and_its_stub_repeats_the_arguments(run: Any, workshop: Any) -> None:
    result = await run([call("refund", order_id="A-1", amount=40), "done"])
    assert result.tools_used[0].result == {"refund_id": "stubbed", "amount": 40}
    assert workshop.calls == []


async def test_a_fixture_answers_a_tool_call(run: Any, workshop: Any) -> None:
    fixtures = [
        {"tool": "read_order", "arguments": {"order_id": "B"}, "result": {"item": "lamp"}},
        {"tool": "read_order", "error": "the shop is closed"},
    ]
    result = await run([call("read_order", order_id="B"), call("read_order", order_id="C"), "done"], fixtures=fixtures)
    assert [(use.result, use.error) for use in result.tools_used] == [
        ({"item": "lamp"}, None),
        (None, "the shop is closed"),
    ]
    assert workshop.calls == []


async def test_with_fixtures_a_read_that_none_answers_ends_the_run_and_is_not_carried_out(
    run: Any, workshop: Any
) -> None:
    fixtures = [{"tool": "read_order", "arguments": {"order_id": "B"}, "result": {"item": "lamp"}}]
    result = await run([call("read_order", order_id="C"), "done"], fixtures=fixtures)
    assert (result.status, result.error_type) == ("failed", "no_fixture")
    assert "'order_id': 'C'" in (result.error or "")
    assert workshop.calls == []


async def test_an_answer_that_fits_the_schema_is_the_output(run: Any) -> None:
    model = FakeModel('```json\n{"order_id": "A-1"}\n```')
    result = await run(model, schema=True, tools=())
    assert (result.output, result.iterations) == ({"order_id": "A-1"}, 0)
    assert model.requests[0].body["response_format"]["json_schema"]["schema"]["required"] == ["order_id"]


async def test_an_invalid_answer_is_repaired_and_the_repairs_are_counted(run: Any) -> None:
    model = FakeModel(["I think A-1", {"order": "A-1"}, {"order_id": "A-1"}])
    result = await run(model, schema=True, tools=())
    assert (result.output, result.iterations, result.model_calls) == ({"order_id": "A-1"}, 2, 3)
    assert "is not JSON" in model.requests[1].last_user
    assert "does not fit the schema" in model.requests[2].last_user


async def test_an_answer_that_stays_invalid_fails_after_max_iterations_repairs(run: Any) -> None:
    model = FakeModel(lambda request: "nonsense")
    result = await run(model, schema=True, tools=(), limits={"max_iterations": 2})
    assert (result.status, result.error_type, result.output) == ("failed", "output_invalid", None)
    assert (result.iterations, result.model_calls) == (2, 3)


async def test_an_answer_cut_off_at_max_tokens_is_not_taken_for_json(run: Any) -> None:
    result = await run([Reply(text='{"order_id": "A"}', finish_reason="length"), {"order_id": "A-1"}], schema=True)
    assert (result.output, result.iterations) == ({"order_id": "A-1"}, 1)


async def test_an_empty_answer_is_no_answer(run: Any) -> None:
    result = await run(lambda request: "  ", limits={"max_iterations": 1})
    assert (result.error_type, result.model_calls) == ("output_invalid", 2)


async def test_the_schema_is_not_sent_beside_tools_but_for_the_repair(run: Any) -> None:
    model = FakeModel(["no json", {"order_id": "A-1"}])
    await run(model, schema=True)
    assert "response_format" not in model.requests[0].body
    assert "tools" in model.requests[0].body
    assert "response_format" in model.requests[1].body
    assert "tools" not in model.requests[1].body


async def test_a_handler_turns_facts_into_the_answer_and_may_call_tools(run: Any, workshop: Any) -> None:
    model = FakeModel([{"order_id": "A-1", "refund": True}])
    result = await run(model, schema=True, handler="decide")
    assert result.output == {"decision": "refunded", "refund": "stubbed"}
    assert [use.name for use in result.tools_used] == ["read_order", "refund"]
    assert workshop.calls == ["read A-1"]
    assert "tools" not in model.requests[0].body


async def test_a_blocking_handler_calls_tools_too(run: Any) -> None:
    result = await run([{"order_id": "A-1"}], schema=True, handler="decide_blocking")
    assert result.output == {"item": "kettle"}


@pytest.mark.parametrize(
    ("handler", "facts", "word"),
    [
        ("broken", {"order_id": "A-1"}, "handler_failed"),
        ("decide", {"order_id": "missing"}, "tool_failed"),
        ("nowhere", {"order_id": "A-1"}, "code_error"),
    ],
)
async def test_a_handler_that_fails_fails_the_run(run: Any, handler: str, facts: Any, word: str) -> None:
    result = await run([facts], schema=True, handler=handler)
    assert (result.status, result.error_type) == ("failed", word)


@pytest.mark.parametrize(
    ("response", "word"),
    [
        (failing(500), "model_error"),
        (failing(400), "model_rejected"),
        (failing(429), "rate_limited"),
        (UpstreamError("down", sent=False), "model_unavailable"),
        (TimeoutError(), "model_timeout"),
        (LimitExceeded("the day's budget is used up", limit="agent:prod:support"), "budget_exceeded"),
        (LimitExceeded("too fast", limit="rate", retry_after=2.0), "rate_limited"),
        (LimitExceeded("the day's budget is used up", limit="tenant", retry_after=5000.0), "budget_exceeded"),
        (Refused("no such role"), "refused"),
        (RuntimeError("a defect of the client"), "internal_error"),
    ],
)
async def test_a_model_that_fails_ends_the_run_with_a_typed_error(run: Any, response: Any, word: str) -> None:
    result = await run(FakeModel(lambda request: response))
    assert (result.status, result.error_type) == ("failed", word)


async def test_a_run_that_was_too_fast_says_when_another_may_pass(run: Any) -> None:
    result = await run(FakeModel(lambda request: LimitExceeded("too fast", limit="rate", retry_after=2.0)))
    assert result.retry_after == 2.0


async def test_a_model_that_never_answers_times_out(run: Any) -> None:
    result = await run(FakeModel(lambda request: hanging()), model_timeout=0.02)
    assert (result.error_type, result.model_calls) == ("model_timeout", 1)


@pytest.mark.parametrize("message", [None, "text", {"content": 7}, {"content": None, "tool_calls": "read"}])
async def test_an_answer_that_is_no_message_is_invalid(run: Any, message: Any) -> None:
    assert (await run(_raw([message]))).error_type == "model_invalid"


async def test_a_fallback_model_is_asked_when_the_first_fails(run: Any) -> None:
    model = FakeModel([failing(503), "from the second"])
    result = await run(model, fallbacks=(ModelRef(provider="other", name="model-2"),))
    assert [request.model for request in model.requests] == ["fake/model-1", "other/model-2"]
    assert (result.output, result.model_calls) == ("from the second", 2)


async def test_no_fallback_is_asked_when_the_budget_is_used_up(run: Any) -> None:
    model = FakeModel(lambda request: LimitExceeded("used up", limit="day"))
    result = await run(model, fallbacks=(ModelRef(provider="other", name="model-2"),))
    assert (result.error_type, len(model.requests)) == ("budget_exceeded", 1)


@pytest.mark.parametrize(
    ("limits", "word", "calls"),
    [
        ({"max_llm_calls": 3}, "llm_calls_exceeded", 3),
        ({"max_tool_calls": 2}, "tool_calls_exceeded", 3),
        ({"max_tokens_per_run": 25}, "tokens_exceeded", 3),  # 10 a call: 20 used, 5 left; then 30
        ({"max_usd_per_run": 0.002}, "cost_exceeded", 2),  # 0.001 a call
    ],
)
async def test_a_loop_without_end_is_stopped(run: Any, limits: dict[str, Any], word: str, calls: int) -> None:
    again = Reply(tool_calls=(call("add", a=1, b=2),), usage=Usage(input_tokens=6, output_tokens=4))
    model = FakeModel(lambda request: again, price=lambda usage: 1_000_000)
    result = await run(model, limits=limits)
    assert (result.status, result.error_type, len(model.requests)) == ("failed", word, calls)


async def test_max_tokens_shrinks_to_what_the_run_has_left(run: Any) -> None:
    asked = Reply(tool_calls=(call("add", a=1, b=2),), usage=Usage(input_tokens=60, output_tokens=20))
    model = FakeModel([asked, "done"])
    await run(model, limits={"max_tokens_per_run": 100})
    assert [request.body["max_tokens"] for request in model.requests] == [100, 20]


async def test_a_run_that_takes_too_long_is_stopped(run: Any) -> None:
    result = await run(FakeModel("late", latency=600.0), limits={"max_seconds": 0.03})
    assert result.status == "failed"
    assert result.error_type == "time_exceeded"


async def test_usage_and_cost_are_added_up(run: Any) -> None:
    usage = Usage(input_tokens=10, output_tokens=5)
    replies = [Reply(tool_calls=(call("add", a=1, b=2),), usage=usage), Reply(text="3", usage=usage)]
    result = await run(FakeModel(replies, price=lambda usage: 700))
    assert (result.usage, result.cost_nano) == (Usage(input_tokens=20, output_tokens=10), 1400)


async def test_a_cancelled_run_is_cancelled(run: Any) -> None:
    task = asyncio.create_task(run(FakeModel("late", latency=600.0)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_policy_forbids_a_call_and_says_why(run: Any, workshop: Any) -> None:
    policy = """
        permit(principal, action, resource);
        @reason("refunds over 30 are for people")
        forbid(principal, action, resource == Tool::"refund")
        when { context.arguments.amount.greaterThan(decimal("30.0")) };
    """
    result = await run([call("refund", order_id="A-1", amount=40), "no"], policies={"p.cedar": policy})
    assert "refunds over 30 are for people" in (result.tools_used[0].error or "")


async def test_a_policy_may_use_the_facts_a_handler_works_on(run: Any) -> None:
    policy = """
        permit(principal, action, resource) when { resource.effect != "write" };
        permit(principal, action, resource) when { context.facts has refund && context.facts.refund };
    """
    facts = {"order_id": "A-1", "refund": True}
    assert (await run([facts], schema=True, handler="decide", policies={"p.cedar": policy})).status == "completed"
    result = await run(
        [facts], schema=True, handler="stubborn", policies={"p.cedar": "forbid(principal,action,resource);"}
    )
    assert result.output == "went on regardless"
    assert "forbidden" in (result.tools_used[0].error or "")


async def test_a_result_that_does_not_fit_the_contract_is_refused(run: Any) -> None:
    odd = ToolContract(name="add", effect="pure", python="tools/code.py:add", output={"type": "string"})
    result = await run([call("add", a=1, b=2), "done"], tools=(odd,))
    assert "returned 3 is not of type" in (result.tools_used[0].error or "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"order_id": "A"}', None),
        ([{"type": "text", "text": '{"order_id":'}, {"type": "text", "text": '"A"}'}], None),
        ("", "not JSON"),
        (None, "not JSON"),
        ('{"order_id": "A"} trailing', "not JSON"),
        ("NaN", "not JSON"),
        ('{"order_id": 1}', "order_id: 1 is not of type"),
    ],
)
def test_an_answer_is_read_strictly(content: Any, problem: str | None) -> None:
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}}
    _, found = read_answer({"content": content}, schema, cut=False)
    assert (found is None) if problem is None else (problem in str(found))


def _raw(messages: list[Any]) -> Any:
    """A client that answers with these very messages, however wrong."""
    from lockgate.runtime.model import Completion

    class Raw(FakeModel):
        async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
            await super().complete(model, body, timeout=timeout)
            return Completion(message=messages[len(self.requests) - 1])

    return Raw(lambda request: "unused")


async def test_a_package_that_is_not_installed_is_no_failure_of_the_version(workshop: Any, run: Any) -> None:
    (workshop.folder / "tools" / "code.py").write_text("import no_such_package\n")
    with pytest.raises(Unavailable, match="the package 'no_such_package', which is not installed here"):
        await run("ok")
