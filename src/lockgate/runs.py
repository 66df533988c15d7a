"""What a gateway asks a host to run: the one message both sides know."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Arm = Literal["stable", "candidate", "shadow", "direct"]
"""Which side of a rollout a run is on; ``direct`` when the caller named the version."""

RunMode = Literal["live", "shadow"]


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the version a host serves (POST /runs, JSON). A :class:`~lockgate.results.RunResult` comes back."""

    run_id: str
    agent: str
    environment: str
    behaviour_digest: str
    effective_digest: str
    arm: Arm
    rollout_id: str | None
    assignment_key: str
    session: str | None
    tenant: str
    input: Any  # a string, or {"messages": [...]}
    trace_id: str  # 32 hex
    parent_span: str | None  # 16 hex
    token: str  # the run token its model calls carry
    mode: RunMode = "live"
    primary_run: str | None = None  # of a shadow
