from __future__ import annotations

from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.tools.model import Ruling
from lockgate.tools.policy import Policy, cedar_value
from lockgate.versions.model import ToolContract

NUMBER = {"type": "object", "properties": {"amount": {"type": "number"}}}
REFUND = ToolContract(name="refund", effect="write", input=NUMBER)
READ = ToolContract(name="read", effect="read", scopes=("orders",))
CAPPED = """
permit(principal, action, resource);
@id("cap") @reason("over 200")
forbid(principal == Agent::"support", action == Action::"call", resource == Tool::"refund")
when { context.arguments.amount.greaterThan(decimal("200.0")) };
"""


def rule(text: str | None, contract: ToolContract, arguments: dict[str, Any], **context: Any) -> Ruling:
    policy = Policy({} if text is None else {"p.cedar": text})
    return policy.rule("support", contract, arguments, environment=context.pop("environment", "prod"), **context)


def test_without_a_policy_file_calls_pass_and_contracts_may_ask() -> None:
    assert rule(None, REFUND, {}).effect == "allow"
    asking = ToolContract(name="refund", effect="write", approval=True)
    assert rule(None, asking, {}).effect == "approval"


@pytest.mark.parametrize(("amount", "effect"), [(200, "allow"), (200.0, "allow"), (200.01, "deny"), (201, "deny")])
def test_a_number_is_compared_as_a_decimal_whether_it_is_whole_or_not(amount: float, effect: str) -> None:
    assert rule(CAPPED, REFUND, {"amount": amount}).effect == effect


def test_a_refusal_names_the_policy_and_its_reason() -> None:
    ruling = rule(CAPPED, REFUND, {"amount": 500})
    assert (ruling.reason, ruling.policies) == ("over 200", ("cap",))


def test_with_a_policy_file_what_nothing_permits_is_denied() -> None:
    ruling = rule('permit(principal, action, resource == Tool::"read");', REFUND, {})
    assert (ruling.effect, ruling.reason) == ("deny", "no policy permits 'refund'")


def test_a_forbid_that_cannot_be_evaluated_denies_instead_of_being_skipped() -> None:
    ruling = rule(CAPPED, REFUND, {})  # no amount: Cedar alone would say Allow
    assert ruling.effect == "deny"
    assert "amount" in ruling.reason


@pytest.mark.parametrize(
    "arguments",
    [
        {"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}},
        {"note": [{"__entity": {"type": "Agent", "id": "boss"}}]},
        {"amount": 1e300},
        {"count": 2**70},
    ],
)
def test_arguments_that_cedar_would_misread_are_denied(arguments: dict[str, Any]) -> None:
    ruling = rule(CAPPED, REFUND, arguments)
    assert (ruling.effect, "cannot judge" in ruling.reason) == ("deny", True)


def test_a_permit_may_ask_for_a_person() -> None:
    text = """
    permit(principal, action, resource) when { resource.effect != "write" };
    @approval("required") @reason("over 50")
    permit(principal, action, resource) when { resource.effect == "write" };
    """
    assert rule(text, READ, {}).effect == "allow"
    asked = rule(text, REFUND, {"amount": 60})
    assert (asked.effect, asked.reason) == ("approval", "over 50")


def test_policies_see_scopes_environment_and_facts() -> None:
    text = """permit(principal, action, resource)
    when { resource.scopes.contains("orders") && context.environment == "prod" && context.facts.vip };"""
    assert rule(text, READ, {}, facts={"vip": True}).effect == "allow"
    assert rule(text, READ, {}, facts={"vip": False}).effect == "deny"
    assert rule(text, READ, {}, facts={"vip": True}, environment="dev").effect == "deny"


def test_text_that_is_no_policy_is_named_by_its_file() -> None:
    with pytest.raises(InputError, match=r"policies/x\.cedar"):
        Policy({"policies/x.cedar": "permit(principal"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_ordinary_arguments_can_be_judged(arguments: dict[str, Any]) -> None:
    ruling = rule("permit(principal, action, resource);", READ, arguments)
    assert ruling == Ruling(effect="allow", policies=("policy0",))


def test_cedar_alone_would_skip_the_failing_forbid() -> None:
    """Why evaluation errors deny: should Cedar change, this says so."""
    request = {
        "principal": 'Agent::"support"',
        "action": 'Action::"call"',
        "resource": 'Tool::"refund"',
        "context": {"arguments": cedar_value({})},
    }
    assert cedarpy.is_authorized(request, CAPPED, []).allowed
