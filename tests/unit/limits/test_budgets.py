"""A model call counts against its run, its agent's day and its tenant's day."""

from __future__ import annotations

import msgspec
import pytest

from lockgate.limits.budgets import accounts_for, estimate_tokens
from lockgate.limits.windows import day_of, seconds_left
from lockgate.versions.model import AgentSettings

NOON = 1_795_003_200.0  # 2026-11-18T12:00:00Z


class Run(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str = "run_1"
    max_usd_nano: int | None = None
    max_llm_calls: int = 10
    max_tokens: int = 4000


def caps(**given: object) -> dict[tuple[str, str, str], int | None]:
    found = accounts_for(environment="prod", tenant="acme", now=NOON, **given)  # type: ignore[arg-type]
    return {(account.name, account.window, account.unit): account.cap for account in found}


def test_a_run_of_an_agent_has_all_the_accounts() -> None:
    settings = AgentSettings(daily_usd=50, daily_tokens=1_000_000)
    assert caps(agent="triage", settings=settings, run=Run(max_usd_nano=50_000_000)) == {
        ("run:run_1", "", "usd"): 50_000_000,
        ("run:run_1", "", "tokens"): 4000,
        ("run:run_1", "", "calls"): 10,
        ("agent:prod:triage", "2026-11-18", "usd"): 50 * 10**9,
        ("agent:prod:triage", "2026-11-18", "tokens"): 1_000_000,
        ("tenant:prod:acme", "2026-11-18", "usd"): None,
    }


def test_what_is_not_capped_is_counted() -> None:
    assert caps(agent="triage")["agent:prod:triage", "2026-11-18", "usd"] is None


def test_a_call_without_an_agent_counts_for_its_tenant() -> None:
    assert caps() == {("tenant:prod:acme", "2026-11-18", "usd"): None}


@pytest.mark.parametrize(
    ("now", "day"),
    [(NOON, "2026-11-18"), (1_795_046_399.9, "2026-11-18"), (1_795_046_400.0, "2026-11-19"), (0.0, "1970-01-01")],
)
def test_days_are_utc(now: float, day: str) -> None:
    assert day_of(now) == day


def test_a_window_ends_at_midnight_and_a_runs_never() -> None:
    assert seconds_left("2026-11-18", NOON) == 12 * 3600
    assert seconds_left("2026-11-17", NOON) == 0
    assert seconds_left("", NOON) is None


def test_tokens_are_estimated_from_bytes() -> None:
    assert estimate_tokens(4000, 512, n=2) == 1000 + 1024
