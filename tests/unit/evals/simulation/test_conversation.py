"""A conversation is one trial: the user is a model with a goal, and the whole is one result."""

from __future__ import annotations

import pytest

from lockgate.errors import InputError, Unavailable
from lockgate.evals.model import Case
from lockgate.evals.simulation import UserScript, changes, converse, simulation_of
from lockgate.results import RunResult, Usage

SCRIPT = UserScript(goal="return the lamp", persona="curt", known="order A-1", max_turns=3)


def user(*messages: str):  # type: ignore[no-untyped-def]
    rest = list(messages)
    asked: list[list[dict[str, str]]] = []

    async def ask(said: list[dict[str, str]]) -> str:
        asked.append(said)
        return rest.pop(0)

    ask.asked = asked  # type: ignore[attr-defined]
    return ask


async def agent(messages: list[dict[str, str]]) -> RunResult:
    return RunResult(
        status="completed", output=f"answer {len(messages)}", usage=Usage(input_tokens=1), cost_nano=7, model_calls=1
    )


async def test_it_ends_when_the_user_says_the_stop_word_and_sums_the_turns() -> None:
    ask = user("hello", "A-1", "###STOP###")
    result = await converse(SCRIPT, agent, ask)
    assert [line["role"] for line in result.transcript] == ["user", "assistant", "user", "assistant", "user"]
    assert (result.output, result.cost_nano, result.model_calls, result.usage.input_tokens) == ("answer 3", 14, 2, 2)
    first, last = ask.asked[0], ask.asked[-1]
    assert "return the lamp" in first[0]["content"]
    assert [line["role"] for line in last[2:]] == ["assistant", "user", "assistant", "user"]  # the roles turned round


async def test_it_ends_after_max_turns() -> None:
    result = await converse(SCRIPT, agent, user("a", "b", "c", "d"))
    assert (result.model_calls, result.status) == (3, "completed")


async def test_a_failed_turn_ends_it_with_that_failure() -> None:
    async def broken(messages: list[dict[str, str]]) -> RunResult:
        return RunResult(status="failed", error_type="tool_calls_exceeded", error="20")

    result = await converse(SCRIPT, broken, user("a", "b"))
    assert (result.status, result.error_type, len(result.transcript)) == ("failed", "tool_calls_exceeded", 1)


async def test_a_user_that_cannot_be_asked_is_not_the_agents_failure() -> None:
    async def away(said: list[dict[str, str]]) -> str:
        raise Unavailable("down")

    assert (await converse(SCRIPT, agent, away)).error_type == "model_unavailable"


def test_changes_name_what_is_other_than_before() -> None:
    before = {"orders": {"1": {"status": "pending", "items": [1, 2]}, "2": {}}}
    after = {"orders": {"1": {"status": "cancelled", "items": [1, 2], "reason": "x"}}}
    assert changes(before, after) == {"orders/1/status": "cancelled", "orders/1/reason": "x", "orders/2": None}


def test_a_simulation_that_makes_no_sense_is_refused_with_the_case() -> None:
    with pytest.raises(InputError, match=r"case 'c': metadata\.simulation: .*gaol"):
        simulation_of(Case(id="c", input="x", metadata={"simulation": {"user": {"gaol": "y"}}}))


@pytest.mark.parametrize("messages", [("a", " "), ("###STOP###",)])
async def test_a_user_that_says_nothing_is_not_the_agents_failure(messages: tuple[str, ...]) -> None:
    result = await converse(SCRIPT, agent, user(*messages))
    assert result.error_type == "model_error"
    assert "the simulated user said nothing" in (result.error or "")
    assert result.model_calls == len(messages) - 1
