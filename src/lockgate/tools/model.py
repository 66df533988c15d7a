"""Rulings on tool calls, and approvals."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

RulingEffect = Literal["allow", "approval", "deny"]

ApprovalStatus = Literal["pending", "approved", "rejected", "executing", "executed", "expired", "unknown"]
"""``unknown``: its host died while the call ran, so whether it happened must be checked by hand."""


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What policy says of one tool call, and why. ``policies`` are the ids of those that decided."""

    effect: RulingEffect
    reason: str = ""
    policies: tuple[str, ...] = ()


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One exact tool call that waits, or waited, for a person's yes. Single use."""

    id: str
    run_id: str
    seq: int  # the step that waits
    agent: str
    environment: str
    tool: str
    arguments: dict[str, Any]
    arguments_hash: str
    effective_digest: str
    policy_digest: str
    status: ApprovalStatus
    requested_at: float
    expires_at: float | None
    decided_at: float | None = None
    decided_by: str | None = None
    reason: str | None = None
    executed_at: float | None = None
