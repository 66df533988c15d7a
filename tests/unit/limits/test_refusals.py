"""A refusal says what the limit is, what is left, what to change, and whether waiting helps."""

from __future__ import annotations

import re

import pytest

from lockgate.limits.model import Balance, Rate, Unit
from lockgate.limits.refusals import budget_exceeded, rate_refused
from lockgate.settings.catalogue import definition

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


@pytest.mark.parametrize("unit", ["calls", "usd", "tokens"])
@pytest.mark.parametrize("account", ["tenant:prod:acme", "agent:prod:triage", "model:prod:local/small", "project:prod"])
def test_where_a_cap_in_all_is_reached_no_setting_is_named_that_there_is_not(account: str, unit: Unit) -> None:
    balance = Balance(account=account, window="", cap=10, settled=10, held=0, unit=unit)
    remedy = str(budget_exceeded(balance, 1, NOON).remedy)
    assert remedy.startswith(f"raise {unit} of limits.")
    assert remedy.endswith("in lockgate.yaml")
    assert "lockgate settings" not in remedy


def test_every_setting_that_a_remedy_names_is_one() -> None:
    for window, unit in (("2026-11-18", "usd"), ("2026-11", "tokens"), ("", "concurrent"), ("2026-11-18", "calls")):
        for account in ("tenant:prod:acme", "agent:prod:triage", "model:prod:local/small", "project:prod"):
            balance = Balance(account=account, window=window, cap=0, settled=0, held=0, unit=unit)  # type: ignore[arg-type]
            for named in re.findall(r"settings set (\S+)", str(budget_exceeded(balance, 1, NOON).remedy)):
                definition(named)


def test_one_call_is_one_call() -> None:
    tenant = Balance(account="tenant:prod:acme", window="", cap=1, settled=1, held=0, unit="calls")
    assert budget_exceeded(tenant, 1, NOON).message == (
        "the budget 'tenant:prod:acme' would pass its cap of 1 call: "
        "spent 1 call, held 0 calls, left 0 calls, this call may need 1 call"
    )
