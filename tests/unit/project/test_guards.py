"""What files may say of guardrails, and what is wrong with what they say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from lockgate.gateway.cache.service import Config
from lockgate.gateway.guardrails import entities, personal, policy, rules, secrets
from lockgate.project import guards
from lockgate.project.guards import CacheSpec, GuardSpec, TenantSpec
from lockgate.versions.model import Guardrails


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"guard": "pii", "characters": 5}, "'characters' is no option of 'pii'"),
        ({"guard": "injection", "action": "redact"}, "'injection' cannot redact"),
        ({"guard": "pii", "kinds": ["emial"]}, "'emial' is no kind of 'pii'"),
        ({"guard": "topics"}, "'topics' has no rules"),
        ({"guard": "topics", "rules": ["weapns"]}, "no built-in rule 'weapns'"),
        ({"guard": "topics", "rules": [{"name": "x", "any": ["a b c d e f g h i"]}]}, "more than 8 words"),
        ({"guard": "max_length"}, "says no length"),
        ({"guard": "pii", "kind": "email"}, "Extra inputs"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GuardSpec.model_validate(wrong)


def test_the_names_in_files_are_those_that_the_gateway_knows() -> None:
    assert set(guards.TOPICS) == set(rules.BUILT_IN)
    assert set(guards.PERSONAL) == {*personal.KINDS, *entities.KINDS}
    assert set(guards.SECRETS) == set(secrets.KINDS)


def test_what_is_written_becomes_a_policy_in_its_order() -> None:
    written = TenantSpec.model_validate({"input": ["pii"], "output": ["secrets"]})
    version = Guardrails(
        pii_redaction=True,
        injection="block",
        input=(GuardSpec.model_validate({"guard": "topics", "rules": ["weapons"]}).config(),),
        output=(GuardSpec.model_validate({"guard": "canary"}).config(),),
    )
    tenant = ([guard.config() for guard in written.input], [guard.config() for guard in written.output])
    made = policy.compile_policy(version, tenant, canary="lgc-0011223344")
    assert [(guard.guard, guard.action) for guard in made.input] == [
        ("pii", "redact"),
        ("pii", "redact"),
        ("injection", "block"),
        ("topics", "block"),
    ]
    assert [guard.guard for guard in made.output] == ["canary", "secrets"]
    assert made.planted == "lgc-0011223344"
    assert not policy.compile_policy(Guardrails())


def test_a_cache_as_it_is_written_is_a_cache_as_it_is_used() -> None:
    written = CacheSpec.model_validate(
        {"ttl": "10m", "semantic": {"provider": "p", "name": "m"}, "tools": True, "random": True}
    )
    used = msgspec.convert(written.model_dump(), Config)
    assert (used.ttl, used.tools, used.random, used.exact) == (600.0, True, True, True)
    assert used.semantic is not None
    assert used.semantic.wire_name == "p/m"
