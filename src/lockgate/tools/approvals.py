"""How an approval may change. Pure: the caller's ``now``, a frozen approval in, its next state out.

pending ──► approved ──► executing ──► executed
   ├──────► rejected        └────────► unknown   (the host died in the middle)
   └──────► expired  ◄── approved (not used in time)
"""

from __future__ import annotations

import msgspec

from lockgate.errors import Conflict, Refused
from lockgate.tools.model import Approval, ApprovalStatus


def expired(approval: Approval, now: float) -> bool:
    """Whether its time is over and it was not used."""
    waiting = approval.status in ("pending", "approved")
    return waiting and approval.expires_at is not None and now >= approval.expires_at


def decide(approval: Approval, verdict: ApprovalStatus, *, by: str, reason: str, now: float) -> Approval:
    """A person's ``approved`` or ``rejected``. Raises :class:`Conflict` unless the approval still waits."""
    if expired(approval, now):
        raise Conflict(f"approval {approval.id} has expired", remedy="run the agent again: it asks anew")
    if approval.status != "pending":
        raise Conflict(f"approval {approval.id} {_decided(approval)}", remedy=_ONCE)
    return msgspec.structs.replace(approval, status=verdict, decided_at=now, decided_by=by, reason=reason or None)


_ONCE = "an approval is for one call, once; when the agent asks again, that is another one"
_SINCE = {
    "approved": ", and its call is still to be made",
    "executing": ", and its call is being made",
    "executed": ", and its call was made",
    "unknown": ", and whether its call was made is not known: check by hand",
}


def _decided(approval: Approval) -> str:
    """What became of it."""
    if approval.status == "expired":
        unused = f"was approved by {approval.decided_by}, and " if approval.decided_by else ""
        return f"{unused}has expired"
    verdict = "rejected" if approval.status == "rejected" else "approved"
    by = f" by {approval.decided_by}" if approval.decided_by else ""
    return f"was {verdict}{by} already{_SINCE.get(approval.status, '')}"


def check_claim(
    approval: Approval, *, arguments_hash: str, effective_digest: str, policy_digest: str, now: float
) -> None:
    """Whether this very call may be carried out now. Raises :class:`Refused` saying what does not fit."""
    if approval.status == "rejected":
        said = f": {approval.reason}" if approval.reason else ""
        raise Refused(f"approval {approval.id} was rejected by {approval.decided_by}{said}")
    if approval.status == "expired" or expired(approval, now):
        raise Refused(f"approval {approval.id} has expired")
    if approval.status != "approved":
        raise Refused(f"approval {approval.id} is {approval.status}; only an approved one can be used, once")
    bound = {
        "arguments": (approval.arguments_hash, arguments_hash),
        "version": (approval.effective_digest, effective_digest),
        "policies": (approval.policy_digest, policy_digest),
    }
    for what, (approved, asked) in bound.items():
        if approved != asked:
            raise Refused(f"approval {approval.id} was given for other {what} ({approved[:19]}, not {asked[:19]})")
