"""Whose verdicts open an environment: tampered, foreign, late and wrong ones are refused with words."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockgate.errors import InputError
from lockgate.project.model import EnvironmentPolicy, ProjectConfig
from lockgate.versions.attestation import key_text, public_key, sign
from lockgate.versions.model import Attestation
from lockgate.versions.trust import DAY, GateAnswer, judge, signers

NOW = 1_800_000_000.0
EFFECTIVE = "sha256:" + "e" * 64
CI, LAPTOP = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
VERDICT = Attestation(
    id="att_1",
    agent="triage",
    behaviour_digest="sha256:" + "b" * 64,
    effective_digest=EFFECTIVE,
    golden_digest="sha256:g",
    rubric_digest="sha256:r",
    verdict="pass",
    details={},
    signer="",
    created_at=NOW - DAY,
)


def ask(*envelopes: dict[str, Any], max_days: float | None = None, **key: Any) -> GateAnswer:
    trusted = {"ci": {"public": key_text(CI.public_key()), **key}}
    config = ProjectConfig.model_validate({"project": "acme", "trusted_keys": trusted})
    return judge(
        envelopes,
        EFFECTIVE,
        environment="prod",
        policy=EnvironmentPolicy(gate_max_days=max_days),
        trusted=signers(config, "prod", [LAPTOP.public_key()]),
        ref="triage@abc",
        now=NOW,
    )


def verdict(key: Ed25519PrivateKey = CI, **changes: Any) -> dict[str, Any]:
    return sign(msgspec.structs.replace(VERDICT, **changes), key)


def why(answer: GateAnswer) -> str:
    assert not answer.open
    assert all(one.remedy for one in answer.refusals)
    return "; ".join(one.why for one in answer.refusals)


def test_a_pass_signed_by_a_trusted_key_opens_whichever_machine_made_it() -> None:
    answer = ask(verdict())
    assert answer.open
    assert answer.signer == "ci"


def test_nothing_is_not_enough() -> None:
    assert why(ask()) == "it has not been through the eval gate, or that was inconclusive"


def test_a_later_fail_takes_an_earlier_pass_back() -> None:
    assert "says fail" in why(ask(verdict(), verdict(verdict="fail", created_at=NOW - 1, id="att_2")))
    assert ask(verdict(), verdict(verdict="fail", created_at=NOW - 2 * DAY, id="att_2")).open


def test_a_foreign_key_is_named_and_does_not_take_a_pass_back() -> None:
    foreign = verdict(LAPTOP, verdict="fail", created_at=NOW)
    assert "prod does not trust (it trusts ci (ed25519:" in why(ask(foreign))
    assert ask(foreign, verdict()).open


def test_a_changed_verdict_is_told_from_a_foreign_one() -> None:
    envelope = verdict(verdict="fail")
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["predicate"]["verdict"] = "pass"
    changed = {**envelope, "payload": base64.b64encode(json.dumps(payload).encode()).decode()}
    assert "was changed after 'ci' signed it" in why(ask(changed))


def test_a_verdict_about_something_else_does_not_count() -> None:
    assert "is about sha256:ffff" in why(ask(verdict(effective_digest="sha256:" + "f" * 64)))


def test_an_old_verdict_a_lapsed_key_and_the_future_do_not_count() -> None:
    assert "10.0 days old" in why(ask(verdict(created_at=NOW - 10 * DAY), max_days=7))
    assert "counted until 2027-01-14" in why(ask(verdict(), until="2027-01-14"))
    assert ask(verdict(), until="2027-01-15").open  # NOW is in this day
    assert "from the future" in why(ask(verdict(created_at=NOW + DAY)))


def test_a_key_counts_only_where_it_is_said_to_and_else_this_machine_s_does() -> None:
    assert ask(verdict(), environments=["prod"]).open
    assert "does not trust" in why(ask(verdict(), environments=["dev"]))
    assert ask(verdict(LAPTOP), environments=["dev"]).signer == "this machine"


@pytest.mark.parametrize("text", ["ed25519:abc", "rsa:" + "A" * 43 + "=", "", "ed25519:%"])
def test_what_is_no_public_key_says_so(text: str) -> None:
    with pytest.raises(InputError, match="not a public key"):
        public_key(text)
