"""A refusal says what the limit is, what is left, what to change, and whether waiting helps."""

from __future__ import annotations

from lockgate.limits.model import Balance
from lockgate.limits.refusals import budget_exceeded, rate_exceeded

NOON = 1_795_003_200.0
USD = 10**9


def day(settled: int, held: int) -> Balance:
    return Balance(account="agent:prod:triage", window="2026-11-18", cap=50 * USD, settled=settled, held=held)


def test_a_spent_day_can_be_waited_out() -> None:
    error = budget_exceeded(day(49 * USD, 0), 2 * USD, NOON)
    assert error.message == (
        "the budget 'agent:prod:triage' in 2026-11-18 would pass its cap of $50.00: "
        "spent $49.00, held $0.00, left $1.00, this call may need $2.00"
    )
    assert error.remedy == "raise budgets.daily_usd, or wait until it ends"
    assert error.retry_after == 12 * 3600
    assert error.limit == "agent:prod:triage"


def test_open_holds_may_come_back_soon() -> None:
    assert budget_exceeded(day(10 * USD, 39 * USD), 2 * USD, NOON).retry_after == 1.0


def test_waiting_does_not_help_a_call_that_is_larger_than_the_cap() -> None:
    error = budget_exceeded(day(0, 0), 51 * USD, NOON)
    assert error.retry_after is None
    assert error.remedy == "raise budgets.daily_usd, or lower max_tokens or shorten the request"


def test_waiting_does_not_help_a_run() -> None:
    run = Balance(account="run:run_1", window="", cap=10, settled=10, held=0, unit="calls")
    error = budget_exceeded(run, 1, NOON)
    assert error.retry_after is None
    assert "10 calls" in error.message
    assert error.remedy == "raise budgets.max_llm_calls"
    named = Balance(account="run:dev/acme/r1", window="", cap=10, settled=10, held=0, unit="calls")
    assert budget_exceeded(named, 1, NOON).remedy == "raise limits.runs.max_llm_calls in lockgate.yaml"


def test_an_empty_bucket_says_when_it_has_enough() -> None:
    error = rate_exceeded("key:k1", 2.0, 10.0, 0.25)
    assert (error.retry_after, error.limit) == (0.25, "key:k1")
    assert "2 a second, at most 10 at once" in error.message
