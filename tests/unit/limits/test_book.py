"""Which limits hold for a call: by name, by environment, and what holds for each without an entry."""

from __future__ import annotations

import pytest

from lockgate.limits.book import Book, Caller
from lockgate.limits.budgets import merged
from lockgate.limits.model import Account
from lockgate.project.limits import LimitSpec

NOON = 1_795_003_200.0  # 2026-11-18T12:00:00Z
USD = 10**9

SPEC = LimitSpec.model_validate(
    {
        "time_zone": "Pacific/Auckland",
        "project": {"monthly_usd": 100.0},
        "tenants": {"*": {"daily_usd": 1.0, "requests_per_minute": 60.0}, "acme": {"daily_usd": 5.0, "concurrent": 8}},
        "sessions": {"*": {"usd": 0.5}},
        "models": {"openai/gpt-4o": {"tokens_per_minute": 1000.0}},
        "tasks": {"summarise": {"daily_tokens": 9}},
        "labels": {"beta": {"usd": 2.0}},
    }
)  # fmt: skip


def caps(book: Book, **caller: object) -> dict[tuple[str, str, str], int | None]:
    accounts, _ = book.limits(Caller(**caller), NOON)  # type: ignore[arg-type]
    return {account.key: account.cap for account in accounts}


def test_a_name_with_an_entry_has_its_own_and_each_other_the_stars() -> None:
    book = Book("prod", SPEC)
    day = "2026-11-19 Pacific/Auckland"  # noon in Greenwich is the next day there
    assert caps(book, tenant="acme") == {
        ("tenant:prod:acme", day, "usd"): 5 * USD,
        ("tenant:prod:acme", "", "concurrent"): 8,
        ("project:prod", "2026-11 Pacific/Auckland", "usd"): 100 * USD,
    }
    assert caps(book, tenant="other")["tenant:prod:other", day, "usd"] == USD


@pytest.mark.parametrize(
    ("account", "window", "counts"),
    [
        ("tenant:prod:acme", "2026-11-19 Pacific/Auckland", True),
        ("tenant:prod:acme", "2026-11-19", False),  # of another time zone
        ("tenant:prod:acme", "2026-11 Pacific/Auckland", False),  # it has no limit of a month
        ("project:prod", "2026-11 Pacific/Auckland", True),
        ("project:prod", "2026-11-19 Pacific/Auckland", False),
        ("model:prod:openai/gpt-4o", "2026-11-19 Pacific/Auckland", False),
        ("key:prod:key_1", "2026-11 Pacific/Auckland", True),
    ],
)
def test_what_calls_of_now_count_on(account: str, window: str, counts: bool) -> None:
    assert Book("prod", SPEC).counts(account, window) is counts


def test_session_task_and_labels_have_budgets() -> None:
    found = caps(Book("prod", SPEC), tenant="acme", session="s1", task="summarise", labels=("beta", "free"))
    assert found["session:prod:acme/s1", "", "usd"] == USD // 2
    assert found["task:prod:summarise", "2026-11-19 Pacific/Auckland", "tokens"] == 9
    assert found["label:prod:beta", "", "usd"] == 2 * USD
    assert not any("free" in name for name, _, _ in found)


def test_a_long_session_is_known_by_its_digest() -> None:
    names = {name for name, _, _ in caps(Book("prod", SPEC), tenant="acme", session="s" * 256) if "session" in name}
    assert len(names) == 1
    assert len(names.pop()) < 80


def test_a_keys_own_limits_stand_in_place_of_the_files() -> None:
    spec = LimitSpec.model_validate({"keys": {"*": {"daily_usd": 1.0}}})
    own = caps(Book("prod", spec), tenant="acme", key="key_1", key_limits=(("requests_per_minute", 5.0),))
    assert own == {}
    accounts, rates = Book("prod", spec).limits(
        Caller(tenant="acme", key="key_1", key_limits=(("concurrent", 2), ("requests_per_minute", 5.0))), NOON
    )
    assert [(account.name, account.unit, account.cap) for account in accounts] == [("key:prod:key_1", "concurrent", 2)]
    assert [(rate.name, rate.per_minute) for rate in rates] == [("key:prod:key_1", 5.0)]


def test_rates_are_shared_by_members_and_divided_between_machines() -> None:
    _, rates = Book("prod", SPEC, machines=2).limits(Caller(tenant="x", key="k", model="openai/gpt-4o"), NOON)
    assert [(rate.name, rate.unit, rate.per_minute, rate.member) for rate in rates] == [
        ("tenant:prod:x", "requests", 30.0, "k"),
        ("model:prod:openai/gpt-4o", "tokens", 500.0, "x"),
    ]


def test_an_environment_says_over_the_project_by_name() -> None:
    project = LimitSpec.model_validate({"tenants": {"a": {"daily_usd": 1.0}, "b": {"daily_usd": 1.0}}})
    prod = LimitSpec.model_validate({"tenants": {"a": {"daily_usd": 9.0}}})
    book = Book("prod", prod.over(project))
    assert caps(book, tenant="a")["tenant:prod:a", "2026-11-18", "usd"] == 9 * USD
    assert caps(book, tenant="b")["tenant:prod:b", "2026-11-18", "usd"] == USD


def test_of_two_caps_the_smaller_holds() -> None:
    def account(cap: int | None) -> Account:
        return Account(name="a", window="", cap=cap)

    assert [one.cap for one in merged([account(5)], [account(3)])] == [3]
    assert [one.cap for one in merged([account(None)], [account(3)])] == [3]
    assert [one.cap for one in merged([account(2)], [account(3)])] == [2]


def test_a_time_zone_has_to_exist() -> None:
    with pytest.raises(ValueError, match="no time zone 'Mars/Olympus'"):
        LimitSpec.model_validate({"time_zone": "Mars/Olympus"})


def test_a_rate_of_nothing_is_no_rate() -> None:
    with pytest.raises(ValueError, match="a rate is above 0"):
        LimitSpec.model_validate({"project": {"tokens_per_minute": 0}})
