"""A limit that is set goes before the file's, field by field, the narrowest first."""

from __future__ import annotations

from typing import Any

from lockgate.limits.budgets import as_set
from lockgate.limits.overrides import with_settings
from lockgate.project.limits import Allowance, LimitSpec
from lockgate.settings.model import Scope, Setting, Snapshot
from lockgate.versions.model import AgentSettings

FILE = LimitSpec(
    tenants={"acme": Allowance(daily_usd=5, concurrent=3), "*": Allowance(daily_usd=1)},
    project=Allowance(monthly_usd=100),
)


def snapshot(*settings: tuple[str, Any, dict[str, str]]) -> Snapshot:
    return Snapshot(
        Setting(name=name, scope=Scope(**scope), value=value, reason="", actor="a", at=0.0, revision=number)
        for number, (name, value, scope) in enumerate(settings, 1)
    )


def test_one_value_is_replaced_and_the_rest_of_the_entry_stays() -> None:
    after = with_settings(FILE, snapshot(("limit.daily_usd", 50, {"tenant": "acme"})), "prod")
    assert after.tenants["acme"] == Allowance(daily_usd=50, concurrent=3)
    assert after.tenants["*"] == FILE.tenants["*"]


def test_a_name_without_an_entry_begins_with_what_holds_for_each() -> None:
    after = with_settings(FILE, snapshot(("limit.requests_per_minute", 60, {"tenant": "beta"})), "prod")
    assert after.tenants["beta"] == Allowance(daily_usd=1, requests_per_minute=60)


def test_a_setting_for_an_environment_goes_before_one_for_all_whatever_came_first() -> None:
    known = snapshot(
        ("limit.daily_usd", 7, {"tenant": "acme", "environment": "prod"}), ("limit.daily_usd", 6, {"tenant": "acme"})
    )
    assert with_settings(FILE, known, "prod").tenants["acme"].daily_usd == 7
    assert with_settings(FILE, known, "dev").tenants["acme"].daily_usd == 6


def test_of_nobody_it_is_the_whole_environments() -> None:
    after = with_settings(FILE, snapshot(("limit.daily_usd", 9, {"environment": "prod"})), "prod")
    assert after.project == Allowance(monthly_usd=100, daily_usd=9)
    assert with_settings(FILE, snapshot(("limit.daily_usd", 9, {"environment": "prod"})), "dev") == FILE


def test_an_agents_day_is_what_is_set_for_it_not_for_its_environment() -> None:
    known = snapshot(("limit.daily_usd", 7, {"agent": "triage"}), ("limit.daily_usd", 9, {"environment": "prod"}))
    settings = AgentSettings(daily_usd=5.0, daily_tokens=1000)
    assert as_set(settings, known, "prod", "triage") == AgentSettings(daily_usd=7, daily_tokens=1000)
    assert as_set(settings, known, "prod", "other") == settings
