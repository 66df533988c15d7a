from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lockgate.errors import Diverged, LimitExceeded, RunFailed, ToolFailed
from lockgate.results import RunResult
from lockgate.runtime.context import RunContext
from lockgate.runtime.execution import execute
from lockgate.runtime.journal import Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import Held, Step
from lockgate.runtime.service import Live
from lockgate.runtime.tool_metrics import ToolMetrics
from lockgate.runtime.tracing import Tracer
from lockgate.telemetry.metrics import Registry
from lockgate.telemetry.model import OK, Span
from lockgate.testing import FakeModel, call
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, Framework, ToolContract


class Record:
    """A recorder in memory that notes the order of what it is told."""

    def __init__(self, approval: Approval | None = None) -> None:
        self.events: list[str] = []
        self.approval = approval
        self.begun = asyncio.Event()

    async def started(self, step: Step) -> None:
        self.events.append(f"started {step.name}")
        self.begun.set()

    async def ended(self, step: Step) -> None:
        self.events.append(f"{step.status} {step.name}")

    async def waiting(self, step: Step, ruling: Ruling) -> Approval:
        self.events.append(f"waiting {step.name}: {ruling.reason}")
        self.approval = _approval("pending")
        return self.approval

    async def decision(self, step: Step) -> Approval:
        assert self.approval is not None
        return self.approval

    async def claim(self, step: Step, approval: Approval) -> None:
        self.events.append(f"claimed {step.name}")


def _approval(status: Any) -> Approval:
    names = ("id", "run_id", "agent", "environment", "tool", "arguments_hash", "effective_digest", "policy_digest")
    return Approval(
        **dict.fromkeys(names, "x"),
        seq=0,
        arguments={},
        status=status,
        requested_at=0.0,
        expires_at=None,
        decided_by="ann",
    )


@pytest.fixture
def start(workshop: Any, make_version: Callable[..., AgentVersion]) -> Callable[..., Any]:
    def start(
        responses: Any = "ok",
        *,
        recorder: Record | None = None,
        steps: list[Step] | None = None,
        emit: Callable[[Span], None] | None = None,
        mode: Any = None,
        allowed: Any = None,
        purse: Any = None,
        **fields: Any,
    ) -> RunContext:
        version = make_version(**fields)
        return RunContext(
            version,
            responses if isinstance(responses, FakeModel) else FakeModel(responses),
            code=Code(workshop.folder),
            policy=Policy(version.policies),
            mode=mode or Live(),
            recorder=recorder or Record(),
            journal=Journal(steps or []),
            tracer=Tracer(emit, version, run_id="run_1"),
            clock=lambda: 1000.0,
            environment="prod",
            run_id="run_1",
            allowed=allowed,
            purse=purse,
        )

    return start


ASKING = ToolContract(name="refund", effect="write", python="tools/code.py:refund", approval=True)
WRITING = ToolContract(name="refund", effect="write", python="tools/code.py:refund")


def tools(*contracts: ToolContract, handler: str | None = None) -> dict[str, Any]:
    extra = (ToolContract(name=handler, effect="pure", python=f"tools/code.py:{handler}"),) if handler else ()
    return {"tools": (*contracts, *extra), "handler": handler}


async def test_a_write_is_recorded_before_it_happens(start: Any, workshop: Any) -> None:
    record = Record()
    ctx = start(recorder=record)
    record.started = _checking(record, lambda: workshop.calls == [])  # type: ignore[method-assign]
    assert (await ctx.tool("refund", {"order_id": "A", "amount": 1}))["refund_id"] == "r-1"
    assert record.events == ["started refund: True", "done refund"]


async def test_a_write_that_happened_is_done_whatever_it_returned(start: Any, workshop: Any) -> None:
    """Told that it failed, a model would write again."""
    ctx = start()
    assert "not json" in await ctx.tool("odd_write")
    assert (ctx.journal.steps[0].status, workshop.calls) == ("done", ["odd_write"])


async def test_a_shadow_that_ended_unscored_stays_ended_whatever_its_code_catches(start: Any, workshop: Any) -> None:
    class Unfair:
        async def answer(self, contract: Any, arguments: Any, *, asks: bool) -> None:
            raise RunFailed("unscored", "not fair")

    result = await execute(start(["anything"], mode=Unfair(), **tools(WRITING, handler="stubborn")), "hi")
    assert (result.status, result.error_type, result.output) == ("failed", "unscored", None)
    assert workshop.calls == []


async def test_a_read_is_recorded_when_it_is_done(start: Any) -> None:
    record = Record()
    await start(recorder=record).tool("read_order", {"order_id": "A"})
    assert record.events == ["done read_order"]


async def test_a_repeated_read_is_made_once_where_that_is_wanted_and_again_after_a_write(
    start: Any, workshop: Any
) -> None:
    spans: list[Span] = []
    ctx = start(cache={"tools": True, "ttl": 60.0}, emit=spans.append)
    first = await ctx.tool("read_order", {"order_id": "A"})
    first["item"] = "changed by its caller"
    assert (await ctx.tool("read_order", {"order_id": "A"}))["item"] == "kettle"
    await ctx.tool("read_order", {"order_id": "B"})
    assert workshop.calls == ["read A", "read B"]
    await ctx.tool("refund", {"order_id": "A", "amount": 1})
    await ctx.tool("read_order", {"order_id": "A"})
    assert workshop.calls[2:] == ["refund A 1", "read A"]
    assert len(ctx.journal.steps) == 5
    assert [span.attributes.get("lockgate.cache.hit") for span in spans] == ["miss", "tool", "miss", None, "miss"]
    metrics = ToolMetrics(registry := Registry())
    for span in spans:
        metrics.note(span, "prod")
    told = registry.render()
    counted = (
        'lockgate_tool_cache_lookups_total{environment="prod",agent="support",gen_ai_tool_name="read_order",result='
    )
    assert f'{counted}"hit"}} 1' in told
    assert f'{counted}"miss"}} 3' in told
    assert 'gen_ai_execute_tool_duration_seconds_count{gen_ai_tool_name="refund",error_type=""} 1' in told
    assert spans[1].attributes["lockgate.cache.saved_seconds"] > 0


async def test_a_read_that_failed_is_made_again(start: Any, workshop: Any) -> None:
    ctx = start(cache={"tools": True})
    for _ in range(2):
        with pytest.raises(ToolFailed):
            await ctx.tool("read_order", {"order_id": "missing"})
    assert workshop.calls == ["read missing", "read missing"]


async def test_reads_are_made_each_time_unless_told(start: Any, workshop: Any) -> None:
    ctx = start(cache={"exact": True})
    for _ in range(2):
        await ctx.tool("read_order", {"order_id": "A"})
    assert workshop.calls == ["read A", "read A"]


async def test_a_call_that_needs_a_yes_suspends_the_run_before_it_happens(start: Any, workshop: Any) -> None:
    record = Record()
    result = await execute(start([call("refund", order_id="A", amount=1)], recorder=record, **tools(ASKING)), "hi")
    assert (result.status, result.approval_id, result.error) == ("suspended", "x", None)
    assert record.events == ["done fake/model-1", "waiting refund: 'refund' asks for an approval in its contract"]
    assert workshop.calls == []


async def test_code_that_swallows_the_suspension_does_not_get_on(start: Any, workshop: Any) -> None:
    ctx = start(["anything"], **tools(ASKING, handler="stubborn"))
    result = await execute(ctx, "hi")
    assert (result.status, result.output) == ("suspended", None)
    assert workshop.calls == []


async def test_an_approved_call_is_claimed_and_made(start: Any, workshop: Any) -> None:
    first = start([call("refund", order_id="A", amount=1)], **tools(ASKING))
    await execute(first, "hi")
    record = Record(_approval("approved"))
    model = FakeModel(["It is refunded."])
    ctx = start(model, recorder=record, steps=first.journal.steps, **tools(ASKING))
    result = await execute(ctx, "hi")
    assert (result.status, result.output) == ("completed", "It is refunded.")
    assert record.events == ["claimed refund", "done refund", "done fake/model-1"]
    assert workshop.calls == ["refund A 1"]
    assert (result.model_calls, len(model.requests)) == (2, 1)  # the first was answered from the record


@pytest.mark.parametrize(("status", "word"), [("rejected", "approval_rejected"), ("expired", "approval_expired")])
async def test_a_rejected_call_is_told_to_the_model(start: Any, workshop: Any, status: str, word: str) -> None:
    from lockgate.tools.approvals import check_claim

    class Strict(Record):
        async def claim(self, step: Step, approval: Approval) -> None:
            check_claim(approval, arguments_hash="x", effective_digest="x", policy_digest="x", now=0.0)

    first = start([call("refund", order_id="A", amount=1)], **tools(ASKING))
    await execute(first, "hi")
    model = FakeModel(["Sorry, no."])
    ctx = start(model, recorder=Strict(_approval(status)), steps=first.journal.steps, **tools(ASKING))
    result = await execute(ctx, "hi")
    assert result.output == "Sorry, no."
    assert word in model.requests[0].messages[-1]["content"]
    assert workshop.calls == []


async def test_a_write_whose_outcome_is_unknown_is_never_repeated(start: Any, workshop: Any) -> None:
    first = start()
    await first.tool("refund", {"order_id": "A", "amount": 1})
    cut_off = first.journal.steps[0]
    cut_off.status, cut_off.response = "started", None
    ctx = start(steps=[cut_off])
    with pytest.raises(Exception, match="refund"):
        await ctx.tool("refund", {"order_id": "A", "amount": 1})
    assert (ctx.ended.error_type, workshop.calls) == ("outcome_unknown", ["refund A 1"])


async def test_a_write_that_takes_too_long_has_an_unknown_outcome_and_ends_the_run(start: Any) -> None:
    result = await execute(start([call("slow_write", seconds=30), "never"]), "hi")
    assert (result.status, result.error_type) == ("failed", "outcome_unknown")


async def test_cancelling_finishes_a_write_that_is_under_way(start: Any, workshop: Any) -> None:
    record = Record()
    task = asyncio.create_task(execute(start([call("patient_write", seconds=0.1)], recorder=record), "hi"))
    await asyncio.wait_for(record.begun.wait(), 60)
    for _ in range(3):  # an impatient caller
        task.cancel()
        await asyncio.sleep(0.005)
    result: RunResult = await task
    assert result.status == "cancelled"
    assert workshop.calls == ["slow_write"]
    assert record.events[-1] == "done patient_write"


async def test_steps_asked_for_at_once_happen_one_after_another(start: Any, workshop: Any) -> None:
    ctx = start(framework=Framework(kind="python", entrypoint="tools.code:many"))
    result = await execute(ctx, "hi")
    assert result.output == ["0", "1", "2"]
    assert workshop.calls == ["read 0", "read 1", "read 2"]
    replayed = start(framework=Framework(kind="python", entrypoint="tools.code:many"), steps=ctx.journal.steps)
    assert (await execute(replayed, "hi")).output == ["0", "1", "2"]
    assert len(workshop.calls) == 3


async def test_a_replay_that_asks_for_something_else_stops(start: Any) -> None:
    first = start()
    await first.tool("read_order", {"order_id": "A"})
    ctx = start(steps=first.journal.steps)
    with pytest.raises(Diverged):
        await ctx.tool("read_order", {"order_id": "B"})
    with pytest.raises(Diverged):  # and it stays stopped
        await ctx.tool("read_order", {"order_id": "A"})


async def test_a_failed_step_fails_again_in_a_replay(start: Any, workshop: Any) -> None:
    first = start()
    with pytest.raises(ToolFailed):
        await first.tool("read_order", {"order_id": "missing"})
    with pytest.raises(ToolFailed) as failure:
        await start(steps=first.journal.steps).tool("read_order", {"order_id": "missing"})
    assert failure.value.error_type == "tool_failed"
    assert workshop.calls == ["read missing"]


async def test_arguments_and_results_are_copies(start: Any) -> None:
    ctx = start()
    arguments = {"order_id": "A"}
    result = await ctx.tool("read_order", arguments)
    arguments["order_id"] = result["id"] = "changed"
    assert (ctx.journal.steps[0].request, ctx.tools_used[0].result["id"]) == ({"order_id": "A"}, "A")


async def test_a_plain_python_agent_runs_on_the_same_context(start: Any) -> None:
    ctx = start(["A-9"], framework=Framework(kind="python", entrypoint="tools.code:agent"))
    result = await execute(ctx, "which?")
    assert (result.output, result.model_calls, len(result.tools_used)) == ("kettle", 1, 1)


async def test_the_answer_of_a_python_agent_is_held_to_the_output_schema(start: Any) -> None:
    ctx = start(["A-9"], framework=Framework(kind="python", entrypoint="tools.code:agent"), schema=True)
    result = await execute(ctx, "which?")
    assert (result.status, result.error_type, result.output) == ("failed", "output_invalid", None)


@pytest.mark.parametrize("entrypoint", [None, "tools.code:nothing", "tools.code:NOTES"])
async def test_a_wrong_entrypoint_is_named(start: Any, entrypoint: str | None) -> None:
    result = await execute(start(framework=Framework(kind="python", entrypoint=entrypoint)), "hi")
    assert result.error_type == "code_error"


async def test_a_step_after_the_end_is_refused(start: Any) -> None:
    ctx = start(["ok"])
    await execute(ctx, "hi")
    with pytest.raises(Exception, match="has ended"):
        await ctx.tool("read_order", {"order_id": "A"})


async def test_spans_hang_below_the_agent_and_only_chat_has_tokens(start: Any) -> None:
    spans: list[Span] = []
    ctx = start([call("read_order", order_id="A"), "done"], emit=spans.append)
    result = await execute(ctx, "hi")
    by_name = {span.name: span for span in spans}
    root = by_name["invoke_agent support"]
    assert {span.parent_id for span in spans if span is not root} == {root.span_id}
    assert {span.trace_id.hex() for span in spans} == {result.trace_id}
    assert sum(span.input_tokens + span.output_tokens for span in spans) == result.usage.total_tokens
    assert root.input_tokens == 0
    assert by_name["execute_tool read_order"].attributes["gen_ai.tool.name"] == "read_order"
    assert by_name["chat model-1"].attributes["gen_ai.operation.name"] == "chat"


async def test_a_handlers_calls_hang_below_it_and_a_suspension_is_no_error(start: Any) -> None:
    spans: list[Span] = []
    await execute(start([{"order_id": "A", "refund": True}], emit=spans.append, schema=True, handler="decide"), "hi")
    by_name = {span.name: span for span in spans}
    handler = by_name["execute_tool decide"]
    assert handler.parent_id == by_name["invoke_agent support"].span_id
    assert by_name["execute_tool read_order"].parent_id == handler.span_id
    spans.clear()
    await execute(start(["x"], emit=spans.append, **tools(ASKING, handler="stubborn")), "hi")
    assert {span.name: span.status for span in spans}["execute_tool stubborn"] == OK


async def test_arguments_stay_out_of_spans_when_personal_data_is_redacted(start: Any) -> None:
    from lockgate.versions.model import Guardrails

    spans: list[Span] = []
    ctx = start(emit=spans.append, guardrails=Guardrails(pii_redaction=True))
    await ctx.tool("read_order", {"order_id": "A"})
    assert "A" not in str(spans[0].attributes)


def _checking(record: Record, check: Callable[[], bool]) -> Any:
    async def started(step: Step) -> None:
        record.events.append(f"started {step.name}: {check()}")

    return started


# --- what the caller may, and pays ----------------------------------------------------------------------------


class Till:
    """A purse that keeps what was asked of it; ``refusal`` is raised for each hold."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.events: list[str] = []
        self.refusal = refusal

    async def hold(self, tool: str) -> Held | None:
        self.events.append(f"hold {tool}")
        if self.refusal is not None:
            raise self.refusal
        return Held("h1", 5_000_000)

    async def settle(self, held: Held) -> None:
        self.events.append(f"settle {held.id}")

    async def release(self, held: Held) -> None:
        self.events.append(f"release {held.id}")


async def test_a_tool_that_the_caller_may_not_have_called_is_not(start: Any, workshop: Any) -> None:
    ctx = start(allowed=("read_order",))
    with pytest.raises(ToolFailed, match="caller may not have the tool 'refund' called") as refused:
        await ctx.tool("refund", {"order_id": "A", "amount": 1})
    assert refused.value.error_type == "policy_refused"
    assert workshop.calls == []


async def test_a_paid_tool_is_held_for_before_it_is_called_and_its_price_is_the_runs(start: Any) -> None:
    till = Till()
    ctx = start(purse=till)
    await ctx.tool("refund", {"order_id": "A", "amount": 1})
    assert till.events == ["hold refund", "settle h1"]
    assert ctx.cost_nano == ctx.journal.steps[-1].cost_nano == 5_000_000


async def test_a_paid_tool_that_no_budget_has_room_for_is_not_called_and_ends_the_run(
    start: Any, workshop: Any
) -> None:
    full = LimitExceeded("the tenant's day is used up", limit="tenant:prod:acme")
    ctx = start(purse=Till(full))
    with pytest.raises(RunFailed) as ended:
        await ctx.tool("refund", {"order_id": "A", "amount": 1})
    assert (ended.value.error_type, workshop.calls) == ("budget_exceeded", [])
    with pytest.raises(RunFailed):
        await ctx.tool("refund", {"order_id": "B", "amount": 1})
