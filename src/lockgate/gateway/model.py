"""Who calls, and where it goes."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.runs import Arm, Origin
from lockgate.versions.model import AgentSettings, VersionRef


class Identity(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Who is calling: an API key, or a run that calls back under its run token."""

    key_id: str
    tenant: str
    environment: str
    roles: tuple[str, ...] = ()
    agents: tuple[str, ...] | None = None  # None: any
    models: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    limits: tuple[tuple[str, float], ...] = ()  # the key's own, by the names of project.limits.Allowance
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
    max_tool_calls: int = 20
    max_iterations: int = 3
    max_depth: int = 2
    tools: tuple[str, ...] | None = None  # that the run's caller may have called; None: any
    origin: Origin = Origin()  # what the run's caller said that it counts for


class RunBody(msgspec.Struct, forbid_unknown_fields=True):
    """What ``POST /api/v1/agents/{name}/runs`` takes."""

    input: Any
    session: str | None = None
    user: str | None = None


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


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret, of which only a hash is stored. Times are Unix seconds."""

    id: str
    name: str
    tenant: str
    environment: str
    roles: tuple[str, ...] = ()
    agents: tuple[str, ...] | None = None  # None: any
    models: tuple[str, ...] | None = None  # None: any
    tools: tuple[str, ...] | None = None  # None: any
    limits: tuple[tuple[str, float], ...] = ()  # its own, by the names of project.limits.Allowance
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def identity(self) -> Identity:
        return Identity(
            key_id=self.id,
            tenant=self.tenant,
            environment=self.environment,
            roles=self.roles,
            agents=self.agents,
            models=self.models,
            tools=self.tools,
            limits=self.limits,
        )
