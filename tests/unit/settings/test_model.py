"""The narrowest setting holds, and a price, a budget or a switch is found where it was put."""

from __future__ import annotations

import pytest

from lockgate.errors import InputError, Killed, Refused
from lockgate.settings import switches
from lockgate.settings.catalogue import BEHAVIOUR, DEFINITIONS, check_scope, check_value, definition
from lockgate.settings.model import Scope, Setting, Snapshot


def setting(name: str, value: object, revision: int = 1, **scope: str) -> Setting:
    return Setting(
        name=name, scope=Scope(**scope), value=value, reason="pays twice", actor="cli:ann", at=0.0, revision=revision
    )


def test_the_narrowest_setting_holds() -> None:
    known = Snapshot(
        [
            setting("limit.daily_usd", 1, agent="triage"),
            setting("limit.daily_usd", 2, agent="triage", environment="prod"),
        ]
    )
    assert known.value("limit.daily_usd", agent="triage", environment="prod") == 2
    assert known.value("limit.daily_usd", agent="triage", environment="dev") == 1
    assert known.value("limit.daily_usd", 9, agent="other", environment="prod") == 9


def test_among_equally_narrow_settings_the_newest_holds() -> None:
    known = Snapshot(
        [
            setting("limit.concurrent", 1, revision=7, tenant="acme"),
            setting("limit.concurrent", 2, revision=3, agent="triage"),
        ]
    )
    assert known.value("limit.concurrent", tenant="acme", agent="triage") == 1


def test_one_model_is_narrower_than_a_provider() -> None:
    known = Snapshot([setting("price", 1, revision=2, model="openai/*"), setting("price", 2, model="openai/gpt-5")])
    assert known.value("price", model="openai/gpt-5") == 2
    assert known.value("price", model="openai/gpt-4") == 1
    assert known.value("price", model="openai-eu/gpt-4") is None


@pytest.mark.parametrize(
    ("scope", "hit"),
    [
        ({"environment": "prod"}, True),
        ({"environment": "dev"}, False),
        ({"tenant": "acme"}, True),
        ({"agent": "caller"}, True),
        ({"agent": "callee"}, True),
        ({"agent": "callee", "tenant": "other"}, False),
        ({"model": "openai/gpt-5"}, True),
        ({"model": "openai/*"}, True),
        ({"model": "openai/gpt"}, False),
    ],
)
def test_a_switch_refuses_exactly_what_it_names(scope: dict[str, str], hit: bool) -> None:
    known = Snapshot([setting("kill", True, **scope)])

    def ask() -> None:
        switches.check(known, environment="prod", tenant="acme", agents=["caller", "callee"], model="openai/gpt-5")

    if hit:
        with pytest.raises(Killed):
            ask()
    else:
        ask()


def test_a_refusal_names_who_why_and_how_it_is_lifted() -> None:
    known = Snapshot([setting("kill", True, environment="prod", agent="triage")])
    with pytest.raises(Killed) as refused:
        switches.check(known, environment="prod", tenant="acme", agents=["triage"])
    assert refused.value.message == (
        "switched off (environment 'prod', agent 'triage') by cli:ann at 1970-01-01 00:00:00 UTC: pays twice"
    )
    assert refused.value.remedy == "to lift it: lockgate settings unset kill --env prod --agent triage"
    assert refused.value.what == "agent"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit.daily_usd", -1),
        ("limit.daily_usd", "much"),
        ("limit.daily_usd", float("nan")),
        ("limit.daily_usd", float("inf")),
        ("limit.daily_usd", None),
        ("limit.daily_tokens", 1.5),
        ("kill", "perhaps"),
        ("kill", False),
        ("price", {"input": 1}),
        ("price", {"input": 1, "output": 2, "typo": 3}),
        ("price", {"input": -1, "output": 2}),
        ("alert.budget_percent", 0),
        ("alert.mute", "budget"),
        ("limit.requests_per_minute", 0),
    ],
)
def test_a_bad_value_is_refused_by_name_and_value(name: str, value: object) -> None:
    with pytest.raises(InputError) as wrong:
        check_value(DEFINITIONS[name], value)
    assert repr(name) in wrong.value.message
    assert wrong.value.remedy


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("kill", {}),
        ("limit.daily_usd", {"agent": "triage", "tenant": "acme"}),
        ("limit.daily_usd", {"model": "openai/*"}),
        ("price", {}),
        ("price", {"model": "gpt-5"}),
        ("alert.mute", {"environment": "prod"}),
    ],
)
def test_a_scope_that_a_setting_cannot_have_is_refused(name: str, scope: dict[str, str]) -> None:
    with pytest.raises(InputError):
        check_scope(DEFINITIONS[name], Scope(**scope))


@pytest.mark.parametrize("name", ["model", "temperature", "agent.system_prompt", "tools", "budgets.max_llm_calls"])
def test_what_changes_behaviour_is_refused_with_the_way_to_change_it(name: str) -> None:
    with pytest.raises(Refused, match="only through a new digest") as refused:
        definition(name)
    assert "lockgate lock" in str(refused.value)


def test_what_stands_beside_the_digest_is_sent_to_the_agent_file() -> None:
    with pytest.raises(InputError, match="stands in the agent file"):
        definition("evals.thresholds")


def test_a_slip_in_a_name_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError) as wrong:
        definition("limit.daly_usd")
    assert wrong.value.remedy == "did you mean 'limit.daily_usd'?"


def test_every_key_of_an_agent_file_that_is_behaviour_is_known_as_such() -> None:
    from lockgate.versions.spec import AgentModel, AgentSpec, BudgetSpec

    beside = {"name", "version", "description", "owner", "evals", "rollout", "budgets", "breaker"}
    fields = {*AgentSpec.model_fields, *AgentModel.model_fields, *BudgetSpec.model_fields}
    assert fields - beside - {"provider", "revision", "daily_usd", "daily_tokens"} <= BEHAVIOUR
