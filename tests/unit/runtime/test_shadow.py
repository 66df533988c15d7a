from __future__ import annotations

from typing import Any

import pytest

from lockgate.errors import RunFailed
from lockgate.runtime.model import Answer, Step
from lockgate.runtime.shadow import ShadowTools
from lockgate.versions.model import ToolContract

READ = ToolContract(name="read", effect="read")
WRITE = ToolContract(name="write", effect="write")
PURE = ToolContract(name="pure", effect="pure")


def step(name: str, request: Any, response: Any = None, **fields: Any) -> Step:
    fields = {"status": "done", "effect": name} | fields
    return Step(seq=0, kind="tool", name=name, request_hash="", request=request, response=response, **fields)


async def test_a_pure_tool_is_carried_out() -> None:
    assert await ShadowTools([step("pure", {}, "recorded")]).answer(PURE, {}, asks=False) is None


async def test_a_read_the_primary_made_is_answered_from_its_record() -> None:
    tools = ShadowTools([step("read", {"id": 1}, "one"), step("read", {"id": 2}, "two")])
    assert await tools.answer(READ, {"id": 2}, asks=False) == Answer(result="two", replayed=True)


async def test_the_same_read_twice_gives_the_primarys_answers_in_turn() -> None:
    tools = ShadowTools([step("read", {}, "before"), step("read", {}, "after")])
    answers = [await tools.answer(READ, {}, asks=False) for _ in range(3)]
    assert [answer.result for answer in answers if answer] == ["before", "after", "after"]


async def test_a_failed_read_fails_again() -> None:
    failed = step("read", {}, status="failed", error_type="tool_failed", error="closed")
    answer = await ShadowTools([failed]).answer(READ, {}, asks=False)
    assert answer == Answer(error_type="tool_failed", error="closed", replayed=True)


async def test_a_write_is_never_carried_out() -> None:
    tools = ShadowTools([step("write", {"id": 1}, {"ok": True})])
    made_by_both = await tools.answer(WRITE, {"id": 1}, asks=False)
    own = await tools.answer(WRITE, {"id": 2}, asks=False)
    assert made_by_both == Answer(result={"ok": True}, stubbed=True, replayed=True)
    assert own == Answer(result={"status": "stubbed"}, stubbed=True)


async def test_a_call_that_would_ask_a_person_is_an_intention() -> None:
    answer = await ShadowTools([]).answer(READ, {}, asks=True)
    assert answer is not None
    assert answer.stubbed


async def test_a_tool_the_primary_knows_as_a_write_is_one_whatever_the_candidate_says() -> None:
    relabelled = ToolContract(name="write", effect="read")
    answer = await ShadowTools([step("write", {"id": 1})]).answer(relabelled, {"id": 2}, asks=False)
    assert answer is not None
    assert answer.stubbed


async def test_an_unrecorded_read_goes_live_while_nothing_was_written() -> None:
    refused = step("write", {}, status="failed", error_type="policy_refused", error="no")
    assert await ShadowTools([step("read", {"id": 1}), refused]).answer(READ, {"id": 2}, asks=False) is None


@pytest.mark.parametrize(
    "write",
    [
        step("write", {}),
        step("write", {}, status="started"),
        step("write", {}, status="failed", error_type="tool_failed", error="half"),
    ],
)
async def test_an_unrecorded_read_after_the_primarys_write_ends_unscored(write: Step) -> None:
    with pytest.raises(RunFailed) as failure:
        await ShadowTools([write]).answer(READ, {"id": 2}, asks=False)
    assert failure.value.error_type == "unscored"


async def test_an_unrecorded_read_after_the_shadows_own_intention_ends_unscored() -> None:
    tools = ShadowTools([])
    await tools.answer(WRITE, {}, asks=False)
    with pytest.raises(RunFailed, match="after a write"):
        await tools.answer(READ, {}, asks=False)
