"""A refusal says what the limit is, what is left, what to change, and whether waiting helps."""

from __future__ import annotations

import pytest

from lockgate.limits.model import Balance, Rate, Unit
from lockgate.limits.refusals import budget_exceeded, rate_refused

NOON = 1_795_003_200.0
USD = 10**9
DAILY = (
    "budgets.daily_usd in the agent's file, daily_usd of limits.agents.triage (or of its '*') in lockgate.yaml, "
    "or `lockgate settings set limit.daily_usd … --env prod --agent triage`"
)


def day(settled: int, held: int) -> Balance:
    return Balance(account="agent:prod:triage", window="2026-11-18", cap=50 * USD, settled=settled, held=held)


def test_a_spent_day_can_be_waited_out() -> None:
    error = budget_exceeded(day(49 * USD, 0), 2 * USD, NOON)
    assert error.message == (
        "the budget 'agent:prod:triage' in 2026-11-18 would pass its cap of $50.00: "
        "spent $49.00, held $0.00, left $1.00, this call may need $2.00"
    )
    assert error.remedy == f"raise {DAILY}, or wait until it ends"
    assert error.retry_after == 12 * 3600
    assert error.limit == "agent:prod:triage"


def test_open_holds_may_come_back_soon() -> None:
    assert budget_exceeded(day(10 * USD, 39 * USD), 2 * USD, NOON).retry_after == 1.0


def test_waiting_does_not_help_a_call_that_is_larger_than_the_cap() -> None:
    error = budget_exceeded(day(0, 0), 51 * USD, NOON)
    assert error.retry_after is None
    assert error.remedy == f"raise {DAILY}, or lower max_tokens or shorten the request"


def test_waiting_does_not_help_a_run() -> None:
    run = Balance(account="run:run_1", window="", cap=10, settled=10, held=0, unit="calls")
    error = budget_exceeded(run, 1, NOON)
    assert error.retry_after is None
    assert "10 calls" in error.message
    assert error.remedy == "raise budgets.max_llm_calls in the agent's file"
    named = Balance(account="run:dev/acme/r1", window="", cap=10, settled=10, held=0, unit="calls")
    assert budget_exceeded(named, 1, NOON).remedy == "raise limits.runs.max_llm_calls in lockgate.yaml"


@pytest.mark.parametrize(
    ("window", "unit", "said"),
    [
        ("", "concurrent", "'tenant:prod:acme' may make no calls: concurrent is 0"),
        ("", "calls", "'tenant:prod:acme' may make no calls: calls is 0"),
        ("2026-11-18", "usd", "'tenant:prod:acme' may spend nothing: daily_usd is 0"),
    ],
)
def test_a_limit_of_nothing_is_said_to_be_one(window: str, unit: Unit, said: str) -> None:
    error = budget_exceeded(
        Balance(account="tenant:prod:acme", window=window, cap=0, settled=0, held=0, unit=unit), 1, NOON
    )
    assert (error.message, error.retry_after) == (said, None)
    assert error.remedy is not None
    assert error.remedy.startswith(f"raise {said.split(': ')[1].split()[0]} of limits.tenants.acme")


@pytest.mark.parametrize(
    ("account", "window", "unit", "key"),
    [
        ("tenant:prod:acme", "2026-11-18", "usd", "daily_usd of limits.tenants.acme (or of its '*') in lockgate.yaml"),
        ("tenant:prod:acme", "2026-11 Europe/Berlin", "tokens", "limit.monthly_tokens … --env prod --tenant acme`"),
        ("tenant:prod:acme", "", "concurrent", "concurrent of limits.tenants.acme"),
        ("model:dev:openai/gpt-4o", "2026-11-18", "usd", "daily_usd of limits.models.openai/gpt-4o"),
        ("session:dev:acme/s1", "", "usd", "usd of limits.sessions.s1 (or of its '*') in lockgate.yaml"),
        ("task:dev:summarise", "2026-11-18", "usd", "daily_usd of limits.tasks.summarise"),
        ("label:dev:campaign", "", "usd", "usd of limits.labels.campaign"),
        ("key:dev:key_1", "", "calls", "calls of the key, which `lockgate keys create --limit` set"),
        ("project:dev", "2026-11", "usd", "monthly_usd of limits.project in lockgate.yaml"),
    ],
)
def test_what_to_raise_is_named_with_its_file(account: str, window: str, unit: Unit, key: str) -> None:
    balance = Balance(account=account, window=window, cap=10, settled=10, held=10, unit=unit)
    assert key in str(budget_exceeded(balance, 1, NOON).remedy)


def test_a_rate_says_how_long_to_wait_and_what_to_raise() -> None:
    rate = Rate(name="tenant:dev:acme", per_minute=60.0)
    error = rate_refused((rate, 0.25, False), 1)
    assert (error.retry_after, error.limit) == (0.25, "tenant:dev:acme")
    assert "requests_per_minute of limits.tenants.acme (or of its '*') in lockgate.yaml" in str(error.remedy)
