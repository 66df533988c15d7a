"""Settings are versioned, audited and survive; whoever follows them misses none."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from lockgate.errors import InputError, NotFound, Refused
from lockgate.settings.model import Scope
from lockgate.settings.service import Follower, Settings
from lockgate.storage import audit, schema
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock

PROD = Scope(environment="prod", agent="triage")


@pytest.fixture
def settings(control: Database) -> Settings:
    return Settings(control, FakeClock(), lambda: ["dev", "prod"])


def test_a_value_holds_until_it_is_unset_and_the_history_keeps_both(control: Database, settings: Settings) -> None:
    settings.set("limit.daily_usd", 25, PROD, actor="cli:ann", reason="campaign")
    assert [(one.value, one.actor) for one in settings.all()] == [(25, "cli:ann")]
    settings.unset("limit.daily_usd", PROD, actor="cli:bob", reason="over")
    assert settings.all() == []
    found = [(one.revision, one.removed, one.value, one.actor, one.reason) for one in settings.history()]
    assert found == [(2, True, None, "cli:bob", "over"), (1, False, 25, "cli:ann", "campaign")]


def test_each_change_is_in_the_audit_log_with_what_held_before(control: Database, settings: Settings) -> None:
    settings.set("limit.daily_usd", 25, PROD, actor="cli:ann")
    settings.set("limit.daily_usd", 30, PROD, actor="cli:ann")
    with control.read() as connection:
        assert audit.verify(connection) == 2
        rows = connection.execute(select(schema.audit.c.action, schema.audit.c.subject, schema.audit.c.details)).all()
    assert rows[1] == (
        "setting.set",
        "limit.daily_usd: environment 'prod', agent 'triage'",
        {"from": 25, "to": 30, "reason": ""},
    )


def test_setting_what_holds_already_is_no_change(settings: Settings) -> None:
    first = settings.set("limit.daily_usd", 25, PROD, actor="cli:ann")
    again = settings.set("limit.daily_usd", 25, PROD, actor="cli:bob")
    assert again.setting == first.setting
    assert len(settings.history()) == 1


def test_a_follower_reads_only_when_the_revision_has_changed(control: Database, settings: Settings) -> None:
    following = Follower()

    def look() -> bool:
        with control.read() as connection:
            return following.refresh(connection)

    assert not look()
    settings.set("kill", True, PROD, actor="cli:ann", reason="pays twice")
    assert look()
    assert not look()
    assert following.current.find("kill", environment="prod", agent="triage") is not None
    settings.unset("kill", PROD, actor="cli:ann")
    assert look()
    assert following.current.find("kill", environment="prod", agent="triage") is None


def test_another_process_finds_what_was_set(control: Database, settings: Settings) -> None:
    settings.set("limit.daily_usd", 5, Scope(tenant="acme"), actor="cli:ann")
    assert Settings(control, FakeClock(), lambda: ["dev"]).snapshot().value("limit.daily_usd", tenant="acme") == 5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": "kill", "value": True, "scope": PROD}, InputError, "needs a reason"),
        ({"name": "limit.daily_usd", "value": -1, "scope": PROD}, InputError, "'limit.daily_usd' is -1"),
        ({"name": "limit.daily_usd", "value": 1, "scope": Scope(environment="prd", agent="a")}, InputError, "'prd'"),
        ({"name": "model.temperature", "value": 1, "scope": PROD}, Refused, "only through a new digest"),
        ({"name": "limit.daily_usd", "value": 1, "scope": PROD, "reason": "x" * 2001}, InputError, "2001 characters"),
        ({"name": "limit.daily_usd", "value": 1, "scope": Scope(agent="a\nb")}, InputError, "is no name"),
    ],
)
def test_what_is_wrong_changes_nothing(
    settings: Settings, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        settings.set(**change, actor="cli:ann")
    assert settings.history() == []


def test_unsetting_what_is_not_set_there_says_where_it_is(settings: Settings) -> None:
    settings.set("limit.daily_usd", 25, PROD, actor="cli:ann")
    with pytest.raises(NotFound) as missing:
        settings.unset("limit.daily_usd", Scope(agent="triage"), actor="cli:ann")
    assert missing.value.remedy == "it is set for: environment 'prod', agent 'triage'"


def test_a_name_nobody_has_is_pointed_out(settings: Settings) -> None:
    done = settings.set("kill", True, Scope(agent="trage", tenant="acmee"), actor="cli:ann", reason="x")
    assert ["no agent 'trage'" in done.notes[0], "no key was ever made for the tenant 'acmee'" in done.notes[1]] == [
        True,
        True,
    ]


def test_a_list_for_an_environment_has_what_holds_there(settings: Settings) -> None:
    settings.set("limit.daily_usd", 1, PROD, actor="a")
    settings.set("limit.daily_usd", 2, Scope(agent="triage", environment="dev"), actor="a")
    settings.set("limit.daily_usd", 3, Scope(agent="triage"), actor="a")
    assert [one.value for one in settings.all(environment="prod")] == [3, 1]
