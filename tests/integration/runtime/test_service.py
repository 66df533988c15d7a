from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from lockgate.errors import Conflict, InputError
from lockgate.runs import Origin, RunRequest
from lockgate.runtime import service as runs
from lockgate.settings.model import Scope
from lockgate.settings.service import Settings
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.storage.schema import runs as run_table
from lockgate.testing import FakeClock, FakeModel, Reply, failing
from lockgate.tools.service import Approvals
from lockgate.versions.model import Framework, Guardrails

Ask = Callable[..., RunRequest]
Open = Callable[..., runs.RunService]


def steps_of(control: Database, run_id: str) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in runs.read_steps(control, run_id)]


async def test_a_run_is_recorded_step_by_step(control: Database, open_service: Open, ask: Ask, shop: Any) -> None:
    request = ask()
    result = await open_service(approval=False).run(request)
    assert (result.status, result.output) == ("completed", {"refunded": "kettle", "refund": "r-1"})
    row = runs.read_run(control, request.run_id)
    assert (row["status"], row["output"], row["model_calls"], row["tool_calls"]) == (
        "completed",
        result.output,
        1,
        2,
    )
    assert (row["host"], row["attempt"], row["input"]) == ("host_1", 1, request.input)
    assert steps_of(control, request.run_id) == [("fake/model-1", "done"), ("read_order", "done"), ("refund", "done")]
    assert shop.calls == ["read A-1", "refund A-1 40"]


async def test_a_failed_run_is_recorded_with_its_word(control: Database, open_service: Open, ask: Ask) -> None:
    request = ask()
    result = await open_service(FakeModel(lambda request: failing(503))).run(request)
    row = runs.read_run(control, request.run_id)
    assert (result.status, row["status"], row["error_type"]) == ("failed", "failed", "model_error")
    assert steps_of(control, request.run_id) == [("fake/model-1", "failed")]
    assert row["ended_at"] is not None


async def test_a_run_that_is_killed_under_way_makes_no_further_call(
    control: Database, open_service: Open, ask: Ask, shop: Any, clock: FakeClock
) -> None:
    settings = Settings(control, clock, lambda: ["prod"])

    def kill_then_answer(request: Any) -> Any:
        settings.set("kill", True, Scope(agent="support"), actor="cli:ann", reason="pays twice")
        return {"order_id": "A-1"}

    result = await open_service(FakeModel(kill_then_answer), approval=False).run(ask())
    assert (result.status, result.error_type, shop.calls) == ("failed", "killed", [])
    assert "pays twice" in (result.error or "")
    settings.unset("kill", Scope(agent="support"), actor="cli:ann")
    assert (await open_service(approval=False).run(ask())).status == "completed"


async def test_a_run_too_deep_in_a_chain_of_runs_is_refused(
    control: Database, open_service: Open, ask: Ask, shop: Any
) -> None:
    result = await open_service().run(ask(depth=3))
    assert (result.status, result.error_type, shop.calls) == ("failed", "depth_exceeded", [])


async def test_a_request_for_another_version_is_refused(open_service: Open, ask: Ask) -> None:
    with pytest.raises(InputError, match="this host serves"):
        await open_service().run(ask(effective_digest="sha256:" + "0" * 64))


async def test_a_run_id_is_used_once(open_service: Open, ask: Ask, shop: Any) -> None:
    service, request = open_service(approval=False), ask()
    await service.run(request)
    with pytest.raises(Conflict, match="exists already"):
        await service.run(request)
    assert len(shop.calls) == 2


async def test_a_run_suspends_is_approved_resumes_elsewhere_and_writes_once(
    control: Database, open_service: Open, ask: Ask, shop: Any, clock: FakeClock
) -> None:
    request, approvals = ask(), Approvals(control, clock)
    model = FakeModel([{"order_id": "A-1"}])
    suspended = await open_service(model).run(request)
    assert (suspended.status, shop.calls) == ("suspended", ["read A-1"])
    assert runs.read_run(control, request.run_id)["status"] == "suspended"
    assert runs.resumable(control) == []

    asked = approvals.get(suspended.approval_id or "")
    assert (asked.tool, asked.arguments, asked.run_id) == ("refund", {"order_id": "A-1", "amount": 40}, request.run_id)
    approvals.approve(asked.id, "ann", "seen the photo")
    [waiting] = runs.resumable(control)
    assert (waiting.run_id, waiting.tenant, waiting.attempt) == (request.run_id, "acme", 1)

    silent = FakeModel([])  # every model call must come from the record
    go_on = await open_service(silent, host="host_2").take(request.run_id, "token-2")
    result = await go_on()
    assert (result.status, result.output) == ("completed", {"refunded": "kettle", "refund": "r-1"})
    assert shop.calls == ["read A-1", "refund A-1 40"]
    assert silent.requests == []
    assert approvals.get(asked.id).status == "executed"
    row = runs.read_run(control, request.run_id)
    assert (row["status"], row["attempt"], row["host"], row["model_calls"]) == ("completed", 2, "host_2", 1)
    with control.read() as connection:
        assert audit.verify(connection) == 4  # requested, approved, executing, executed


async def test_a_resumed_run_calls_no_tool_that_its_caller_may_not(
    control: Database, open_service: Open, ask: Ask, shop: Any, clock: FakeClock
) -> None:
    origin = Origin(key="key_1", key_limits=(("daily_usd", 5.0),), labels=("beta",), session="s1")
    request = ask(tools=("read_order", "refund"), origin=origin)
    suspended = await open_service().run(request)
    Approvals(control, clock).approve(suspended.approval_id or "", "ann")
    [waiting] = runs.resumable(control)
    assert waiting.tools == ("read_order", "refund")  # its new token will say so too
    assert waiting.origin == origin  # and whom its calls count for
    narrowed = update(run_table).where(run_table.c.id == request.run_id).values(tools=["read_order"])
    with control.write() as connection:
        connection.execute(narrowed)
    result = await (await open_service().take(request.run_id, "t"))()
    assert (result.status, result.error_type) == ("failed", "policy_refused")
    assert shop.calls == ["read A-1"]


async def test_two_hosts_cannot_resume_the_same_run(
    control: Database, open_service: Open, ask: Ask, shop: Any, clock: FakeClock
) -> None:
    request = ask()
    suspended = await open_service().run(request)
    Approvals(control, clock).approve(suspended.approval_id or "", "ann")
    hosts = [open_service(host=f"host_{number}") for number in range(4)]
    taken = await asyncio.gather(*(host.take(request.run_id, "t") for host in hosts), return_exceptions=True)
    mine = [go_on for go_on in taken if not isinstance(go_on, BaseException)]
    assert len(mine) == 1
    assert all(isinstance(other, Conflict) for other in taken if other is not mine[0])
    await mine[0]()  # type: ignore[operator]
    assert shop.calls.count("refund A-1 40") == 1


@pytest.mark.parametrize("how", ["reject", "expire"])
async def test_a_rejected_run_continues_and_is_told_so(
    control: Database, open_service: Open, ask: Ask, shop: Any, clock: FakeClock, how: str
) -> None:
    request, approvals = ask(), Approvals(control, clock)
    suspended = await open_service().run(request)
    if how == "reject":
        approvals.reject(suspended.approval_id or "", "ann", "no photo")
    else:
        clock.advance(24 * 3600)
        assert [one.id for one in approvals.expire()] == [suspended.approval_id]
    [waiting] = runs.resumable(control)
    result = await (await open_service().take(waiting.run_id, "t"))()
    assert (result.status, result.error_type) == (
        "failed",
        "approval_rejected" if how == "reject" else "approval_expired",
    )
    assert shop.calls == ["read A-1"]


async def test_a_resumed_run_that_asks_for_something_else_stops_before_the_write(
    control: Database, open_service: Open, ask: Ask, shop: Any, clock: FakeClock
) -> None:
    request = ask()
    suspended = await open_service().run(request)
    Approvals(control, clock).approve(suspended.approval_id or "", "ann")
    shop.folder.joinpath("tools/code.py").write_text(
        shop.folder.joinpath("tools/code.py").read_text().replace('amount=order["price"]', "amount=4000")
    )
    result = await (await open_service().take(request.run_id, "t"))()
    assert (result.status, result.error_type) == ("failed", "diverged")
    assert shop.calls == ["read A-1"]
    assert Approvals(control, clock).get(suspended.approval_id or "").status == "expired"


async def test_the_runs_of_a_dead_host_are_ended(
    control: Database, open_service: Open, ask: Ask, clock: FakeClock
) -> None:
    service, request = open_service(FakeModel("late", latency=600.0)), ask()
    await service.heartbeat("socket", 1)
    running = asyncio.create_task(service.run(request))
    await _until(lambda: runs.list_runs(control, status="running"))
    assert runs.reap(control, clock) == []
    clock.advance(runs.HOST_LOST_AFTER + 1)
    assert runs.reap(control, clock) == [request.run_id]
    assert runs.reap(control, clock) == []
    row = runs.read_run(control, request.run_id)
    assert (row["status"], row["error_type"], row["attempt"]) == ("failed", "host_lost", 2)
    running.cancel()  # the host was not dead after all: it is fenced off
    late = await running
    assert late.error_type == "host_lost"
    assert runs.read_run(control, request.run_id)["error_type"] == "host_lost"


async def test_a_host_that_was_given_up_cannot_write(
    control: Database, open_service: Open, ask: Ask, clock: FakeClock, shop: Any
) -> None:
    """The host stalls before its write; meanwhile the run is ended. The write must not happen."""
    stalled, go = asyncio.Event(), asyncio.Event()

    class Stalling(FakeModel):
        async def complete(self, *arguments: Any, **rest: Any) -> Any:
            stalled.set()
            await go.wait()
            return await super().complete(*arguments, **rest)

    service, request = open_service(Stalling([{"order_id": "A-1"}]), approval=False), ask()
    running = asyncio.create_task(service.run(request))
    await stalled.wait()
    clock.advance(60)
    runs.reap(control, clock)
    go.set()
    result = await running
    assert (result.status, result.error_type) == ("failed", "host_lost")
    assert "refund A-1 40" not in shop.calls


async def test_a_resumed_run_of_a_dead_host_is_resumed_again(
    control: Database, open_service: Open, ask: Ask, clock: FakeClock, shop: Any
) -> None:
    request = ask()
    suspended = await open_service().run(request)
    Approvals(control, clock).approve(suspended.approval_id or "", "ann")
    await open_service(host="host_2").take(request.run_id, "t")  # and dies before it goes on
    assert runs.resumable(control) == []
    clock.advance(60)
    runs.reap(control, clock)
    [waiting] = runs.resumable(control)
    result = await (await open_service(host="host_3").take(waiting.run_id, "t"))()
    assert result.status == "completed"
    assert shop.calls.count("refund A-1 40") == 1


async def test_cancelling_is_recorded(control: Database, open_service: Open, ask: Ask) -> None:
    service, request = open_service(FakeModel("late", latency=600.0)), ask()
    running = asyncio.create_task(service.run(request))
    await _until(lambda: runs.list_runs(control, status="running"))
    running.cancel()
    assert (await running).status == "cancelled"
    assert runs.read_run(control, request.run_id)["status"] == "cancelled"


# --- shadows --------------------------------------------------------------------------------------------------


async def test_a_shadow_repeats_the_primary_without_touching_the_world(
    control: Database, open_service: Open, ask: Ask, shop: Any
) -> None:
    primary = ask()
    await open_service(approval=False).run(primary)
    before = shop.calls
    shadow = ask(mode="shadow", arm="shadow", primary_run=primary.run_id)
    result = await open_service(approval=True).run(shadow)
    assert (result.status, result.output) == ("completed", {"refunded": "kettle", "refund": "r-1"})
    assert shop.calls == before
    row = runs.read_run(control, shadow.run_id)
    assert (row["primary_run"], row["replayed_calls"], row["tool_calls"]) == (primary.run_id, 2, 2)
    assert steps_of(control, shadow.run_id)[-1] == ("refund", "stubbed")


async def test_a_shadow_that_reads_what_the_primary_changed_is_unscored(
    control: Database, open_service: Open, ask: Ask, shop: Any
) -> None:
    primary = ask()
    await open_service(approval=False).run(primary)
    shadow = ask(mode="shadow", arm="shadow", primary_run=primary.run_id)
    result = await open_service(FakeModel([{"order_id": "B-2"}])).run(shadow)
    assert (result.status, result.error_type) == ("failed", "unscored")
    assert "read B-2" not in shop.calls


@pytest.mark.parametrize(
    ("fields", "primary", "word"),
    [
        ({"framework": Framework(kind="python", entrypoint="tools.code:decide")}, "run_x", "shadow_unsupported"),
        ({}, None, "unscored"),
        ({}, "run_that_never_was", "unscored"),
    ],
)
async def test_a_shadow_that_cannot_be_fair_is_recorded_as_such(
    control: Database, open_service: Open, ask: Ask, fields: dict[str, Any], primary: str | None, word: str
) -> None:
    request = ask(mode="shadow", arm="shadow", primary_run=primary)
    result = await open_service(**fields).run(request)
    assert (result.status, result.error_type) == ("failed", word)
    assert runs.read_run(control, request.run_id)["error_type"] == word


# --- the record ---------------------------------------------------------------------------------------------------


async def test_odd_text_from_models_and_tools_is_recorded(control: Database, open_service: Open, ask: Ask) -> None:
    model = FakeModel(lambda request: Reply(status=500, error="bad \0 byte, 𝔘nicode, 'quotes'"))
    request = ask(session="s\0", assignment_key="k\0")
    await open_service(model).run(request)
    row = runs.read_run(control, request.run_id)
    assert (row["assignment_key"], "bad  byte, 𝔘nicode" in row["error"]) == ("k", True)


async def test_many_runs_at_once_are_all_recorded(control: Database, open_service: Open, ask: Ask) -> None:
    service = open_service(
        FakeModel(lambda request: "ok"), tools=(), handler=None, guardrails=Guardrails(output_schema=None)
    )
    results = await asyncio.gather(*(service.run(ask()) for _ in range(50)))
    assert {result.status for result in results} == {"completed"}
    assert len(runs.list_runs(control, status="completed", limit=100)) == 50


async def _until(check: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - the database says it
            await asyncio.sleep(0.01)
