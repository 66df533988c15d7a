from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.errors import Conflict, Refused
from lockgate.tools.approvals import check_claim, decide, expired
from lockgate.tools.model import Approval

PENDING = Approval(
    id="apr_1",
    run_id="run_1",
    seq=3,
    agent="support",
    environment="prod",
    tool="refund",
    arguments={"amount": 40},
    arguments_hash="args",
    effective_digest="version",
    policy_digest="policies",
    status="pending",
    requested_at=100.0,
    expires_at=200.0,
)
ASKED = {"arguments_hash": "args", "effective_digest": "version", "policy_digest": "policies", "now": 150.0}


def with_status(status: Any) -> Approval:
    return msgspec.structs.replace(PENDING, status=status, decided_by="ann")


def test_a_yes_says_who_and_when() -> None:
    after = decide(PENDING, "approved", by="ann", reason="seen it", now=150.0)
    assert (after.status, after.decided_by, after.decided_at, after.reason) == ("approved", "ann", 150.0, "seen it")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("approved", "was approved by ann already, and its call is still to be made"),
        ("rejected", "was rejected by ann already"),
        ("executing", "was approved by ann already, and its call is being made"),
        ("executed", "was approved by ann already, and its call was made"),
        ("expired", "was approved by ann, and has expired"),
        ("unknown", "was approved by ann already, and whether its call was made is not known"),
    ],
)
def test_a_decision_is_final(status: str, said: str) -> None:
    with pytest.raises(Conflict, match=said):
        decide(with_status(status), "approved", by="bob", reason="", now=150.0)


def test_nobody_decides_after_the_time_is_over() -> None:
    assert not expired(PENDING, 199.9)
    with pytest.raises(Conflict, match="has expired"):
        decide(PENDING, "approved", by="ann", reason="", now=200.0)


def test_an_approved_call_may_be_made() -> None:
    check_claim(with_status("approved"), **ASKED)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["pending", "rejected", "executing", "executed", "expired", "unknown"])
def test_any_other_may_not(status: str) -> None:
    with pytest.raises(Refused):
        check_claim(with_status(status), **ASKED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arguments_hash": "more"}, "other arguments"),
        ({"effective_digest": "v2"}, "other version"),
        ({"policy_digest": "p2"}, "other policies"),
        ({"now": 200.0}, "has expired"),
    ],
)
def test_a_yes_is_for_one_exact_call(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        check_claim(with_status("approved"), **(ASKED | changed))
