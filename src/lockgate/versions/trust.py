"""Whose verdicts count in an environment, and whether one of them opens it. Pure: keys and the time are given.

An environment for which ``trusted_keys`` names keys accepts theirs alone; one for which it names none accepts this
machine's own. The newest verdict of an accepted key decides: a later "fail" takes an earlier "pass" back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError
from lockgate.project.model import EnvironmentPolicy, ProjectConfig
from lockgate.versions.attestation import key_id, public_key, read, verify
from lockgate.versions.model import Attestation, Yardstick

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

OWN = "this machine"
DAY = 86_400.0
NOT_TOLD = Yardstick()
AHEAD = 300.0
"""Seconds that another machine's clock may be ahead."""


class TrustedSigner(msgspec.Struct, frozen=True, kw_only=True):
    """A key whose verdicts count. ``until``: Unix seconds from when on they no longer do."""

    name: str
    key_id: str
    key: Any  # Ed25519PublicKey: a type that is imported only to check a signature
    until: float | None = None


class GateRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why an environment stays shut, and what to do about it."""

    why: str
    remedy: str


class GateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gate is open. ``attestation``: the verdict that decides, when one counts; signed by ``signer``."""

    environment: str
    effective_digest: str
    attestation: Attestation | None = None
    signer: str = ""
    refusals: tuple[GateRefusal, ...] = ()

    @property
    def open(self) -> bool:
        return not self.refusals


def signers(config: ProjectConfig, environment: str, own: Sequence[Ed25519PublicKey]) -> list[TrustedSigner]:
    """Who is trusted in ``environment``. ``own``: this machine's keys, the present one first, then retired ones."""
    found = []
    for name, given in config.trusted_keys.items():
        if given.environments is not None and environment not in given.environments:
            continue
        key = public_key(given.public)
        until = None if given.until is None else _day_after(given.until)
        found.append(TrustedSigner(name=name, key_id=key_id(key), key=key, until=until))
    return found or [TrustedSigner(name=OWN, key_id=key_id(key), key=key) for key in own]


def _day_after(date: str) -> float:
    try:
        day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{date!r} is no date", path="lockgate.yaml", remedy="write 2027-01-31") from None
    return (day + timedelta(days=1)).timestamp()


def judge(
    envelopes: Iterable[Mapping[str, Any]],
    effective_digest: str,
    *,
    environment: str,
    policy: EnvironmentPolicy,
    trusted: Sequence[TrustedSigner],
    ref: str,
    now: float,
    own: Yardstick = NOT_TOLD,
) -> GateAnswer:
    """Whether one of these verdicts opens ``environment`` for ``effective_digest``, by its policy at ``now``.

    Where the policy asks for the agent's ``own`` rubric and golden set, a verdict by others does not count, whatever
    it says: it neither opens nor closes.
    """
    run = f"lockgate eval --agent {ref} --env {environment}"
    counted: list[Attestation] = []
    problems: list[GateRefusal] = []
    for envelope in envelopes:
        problem, attestation = examine(envelope, effective_digest, environment=environment, trusted=trusted, now=now)
        if attestation is not None:
            counted.append(attestation)
        elif problem is not None:
            problems.append(problem)
    answer = GateAnswer(environment=environment, effective_digest=effective_digest)
    if not counted:
        nothing = GateRefusal(why="it has not been through the eval gate, or that was inconclusive", remedy=run)
        return msgspec.structs.replace(answer, refusals=tuple(problems[:3]) or (nothing,))
    measured = [(one, _measured_otherwise(one, own)) for one in counted]
    if policy.require_own_rubric:
        counted = [one for one, wrong in measured if not wrong] or counted
    newest = max(counted, key=lambda one: (one.created_at, one.id))
    name = next((one.name for one in trusted if one.key_id == newest.signer), newest.signer)
    refusals = []
    if newest.verdict != "pass":
        refusals.append(GateRefusal(why=f"its eval gate says {newest.verdict}", remedy=run))
    otherwise = _measured_otherwise(newest, own)
    if otherwise and policy.require_own_rubric:
        refusals.append(GateRefusal(why=f"its gate was measured by {otherwise}", remedy=run))
    age = now - newest.created_at
    if policy.gate_max_days is not None and age > policy.gate_max_days * DAY:
        why = f"its gate is {age / DAY:.1f} days old, and {environment} takes none older than {policy.gate_max_days:g}"
        refusals.append(GateRefusal(why=why, remedy=f"{run} --fresh"))
    return msgspec.structs.replace(answer, attestation=newest, signer=name, refusals=tuple(refusals))


def _measured_otherwise(one: Attestation, own: Yardstick) -> str:
    """What the verdict was measured by instead of the agent's own rubric and golden set; empty when it was those."""
    given = one.details.get("overrides")
    if isinstance(given, list) and given:
        return f"what {' and '.join(map(str, given))} gave, not by the agent's own rubric and golden set"
    if own.rubric is not None and one.rubric_digest != own.rubric:
        return f"the rubric {_short(one.rubric_digest)}, and the agent's own is {_short(own.rubric)} now"
    if own.golden is not None and one.golden_digest != own.golden:
        return f"the golden set {_short(one.golden_digest)}, and the agent's own is {_short(own.golden)} now"
    return ""


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def examine(
    envelope: Mapping[str, Any],
    effective_digest: str,
    *,
    environment: str,
    trusted: Sequence[TrustedSigner],
    now: float,
) -> tuple[GateRefusal | None, Attestation | None]:
    """The verdict in one envelope when it counts here, else what is wrong with it."""
    claimed = read(envelope)
    if claimed is None:
        return GateRefusal(why="an attestation of it cannot be read", remedy="run the gate again, or pull again"), None
    who = "nobody" if not claimed.signers else " and ".join(claimed.signers)
    name = f"its attestation {claimed.attestation.id}"
    attestation = verify(envelope, {one.key_id: one.key for one in trusted})
    if attestation is None:
        known = [one for one in trusted if one.key_id in claimed.signers]
        if known:
            why = f"{name} was changed after {known[0].name!r} signed it: the signature does not match"
            return GateRefusal(why=why, remedy="do not use it; run the gate again"), None
        accepted = ", ".join(f"{one.name} ({one.key_id})" for one in trusted) or "nobody"
        why = f"{name} is signed by {who}, which {environment} does not trust (it trusts {accepted})"
        remedy = "run the gate on a trusted machine, or add the key to trusted_keys in lockgate.yaml"
        return GateRefusal(why=why, remedy=remedy), None
    if attestation.effective_digest != effective_digest:
        why = f"{name} is about {attestation.effective_digest}, not {effective_digest}"
        return GateRefusal(why=why, remedy="run the gate on this version, in this environment"), None
    signer = next(one for one in trusted if one.key_id == attestation.signer)
    if signer.until is not None and now >= signer.until:
        last = datetime.fromtimestamp(signer.until - DAY, UTC).strftime("%Y-%m-%d")
        why = f"{name} is signed by {signer.name!r}, whose key counted until {last}"
        return GateRefusal(why=why, remedy="run the gate again with a key that counts"), None
    if attestation.created_at > now + AHEAD:
        why = f"{name} says it is from the future ({(attestation.created_at - now) / 60:,.0f} minutes)"
        return GateRefusal(why=why, remedy="set the clocks of both machines right"), None
    return None, attestation
