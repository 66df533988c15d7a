"""Who calls, where it goes, and what a host is asked to run."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lockgate.versions.model import AgentSettings, VersionRef

Arm = Literal["stable", "candidate", "shadow", "direct"]
RunMode = Literal["live", "shadow"]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling: an API key, or a run that calls back under its run token."""

    key_id: str
    tenant: str
    environment: str
    roles: tuple[str, ...] = ()
    agents: tuple[str, ...] | None = None  # None: any
    models: tuple[str, ...] | None = None
    run: RunClaims | None = None


class RunClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a run token says: ids and limits only; what is left of a limit is looked up, never carried."""

    run_id: str
    agent: str
    environment: str
    tenant: str
    behaviour_digest: str
    effective_digest: str
    arm: Arm
    trace_id: str  # 32 hex
    depth: int
    expires_at: float
    max_usd_nano: int | None
    max_llm_calls: int
    max_tokens: int


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where one agent's runs go in one environment, as the store has it."""

    environment: str
    agent: str
    stable: VersionRef
    settings: AgentSettings
    candidate: VersionRef | None = None
    rollout_id: str | None = None
    weight: float = 0.0
    mirror: float = 0.0
    lease_until: float | None = None
    revision: int = 0


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway asks a host: one run of the version the host serves (POST /runs, JSON)."""

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
