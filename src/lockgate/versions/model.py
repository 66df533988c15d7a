"""One agent version as the rest of Lockgate uses it: frozen, complete, loaded from its bundle."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Effect = Literal["pure", "read", "write"]
"""What a tool does to the world: computes only, reads it, or changes it. In a shadow only ``pure`` runs freely."""


class ModelRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model with its parameters. None means the provider's default."""

    provider: str
    name: str
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int = 1024
    seed: int | None = None
    stop: tuple[str, ...] = ()
    revision: str | None = None  # what a movable tag resolved to at lock time


class ToolContract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tool is called, takes, gives and does. ``python`` is ``path/to/file.py:function``."""

    name: str
    description: str = ""
    effect: Effect = "write"
    python: str | None = None
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    output: dict[str, Any] | None = None
    scopes: tuple[str, ...] = ()
    approval: bool = False
    timeout: float = 30.0


class Framework(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What runs the agent. ``entrypoint`` is ``package.module:object``."""

    kind: Literal["native", "python", "langgraph", "image"] = "native"
    entrypoint: str | None = None
    image: str | None = None  # pinned: NAME@sha256:…


class Guardrails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is checked and changed around the model. ``output_schema`` keeps the property order of its file;
    ``input`` and ``output`` are guards in their order, as :mod:`lockgate.project.guards` has them."""

    pii_redaction: bool = False
    injection: Literal["off", "flag", "block"] = "off"
    output_schema: dict[str, Any] | None = None
    input: tuple[dict[str, Any], ...] = ()
    output: tuple[dict[str, Any], ...] = ()

    @property
    def checks(self) -> bool:
        """Whether anything is checked at all."""
        return self.pii_redaction or self.injection != "off" or bool(self.input or self.output)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Something that defines the behaviour and is too large to carry: weights, an adapter, a data set."""

    name: str
    kind: str
    digest: str


class ActionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may do at most (action budgets)."""

    max_iterations: int = 3
    max_llm_calls: int = 10
    max_tool_calls: int = 20
    max_tokens_per_run: int = 50_000
    max_seconds: float = 300.0
    max_usd_per_run: float | None = None
    max_depth: int = 2


class AgentVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that defines an agent's behaviour."""

    agent: str
    file_version: int
    behaviour_digest: str
    model: ModelRef
    system_prompt: str
    fallbacks: tuple[ModelRef, ...] = ()
    triage: ModelRef | None = None  # a cheaper model for the easy cases
    routing: dict[str, Any] | None = None  # what is easy
    cache: dict[str, Any] | None = None
    framework: Framework = msgspec.field(default_factory=Framework)
    tools: tuple[ToolContract, ...] = ()
    handler: str | None = None  # the tool that turns the model's output into the answer
    guardrails: Guardrails = msgspec.field(default_factory=Guardrails)
    policies: dict[str, str] = msgspec.field(default_factory=dict)  # path → Cedar text
    limits: ActionLimits = msgspec.field(default_factory=ActionLimits)
    retrieval: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    code: dict[str, str] = msgspec.field(default_factory=dict)  # POSIX path → blob digest
    dependencies: dict[str, str] = msgspec.field(default_factory=dict)  # dependency lock file → its digest
    references: tuple[Reference, ...] = ()  # by name
    policy_digest: str = ""  # of the policies alone: approvals are bound to it

    def tool(self, name: str) -> ToolContract | None:
        return next((tool for tool in self.tools if tool.name == name), None)


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to an agent but cannot change an answer: versioned beside the bundle, without a new identity.

    ``evals`` and ``rollout`` are the agent file's own blocks, already validated; the rooms that use them
    convert them to their types.
    """

    owner: str | None = None
    daily_usd: float | None = None
    daily_tokens: int | None = None
    breaker: dict[str, Any] = msgspec.field(default_factory=dict)
    evals: dict[str, Any] = msgspec.field(default_factory=dict)
    rollout: dict[str, Any] = msgspec.field(default_factory=dict)


class Yardstick(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of an agent's own rubric and golden set. None: it cannot be told here."""

    rubric: str | None = None
    golden: str | None = None


class VersionRef(msgspec.Struct, frozen=True, kw_only=True):
    """Names one version in one environment."""

    agent: str
    behaviour_digest: str
    effective_digest: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something short of good practice: a warning, unless an environment's policy refuses it."""

    kind: str  # owner | pin | number | contract | approval | secret | evals | lock | project | machine
    message: str
    path: str | None = None
    line: int | None = None
    remedy: str = ""

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        return where + self.message


class LockedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``lockgate.lock``."""

    agent: str
    version: int
    file: str  # the agent file, from the project's root
    digest: str  # of the behaviour
    settings: str  # of what is versioned beside it: owner, thresholds, rollout plan, daily budgets
    parts: dict[str, str] = msgspec.field(default_factory=dict)  # kind of part → digest
    models: dict[str, str] = msgspec.field(default_factory=dict)  # provider/name → what the movable name stood for


class LockChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a lock changed, or would change. ``parts`` names the kinds of part that differ."""

    agent: str
    version: int
    what: Literal["new", "changed", "settings", "removed"]
    parts: tuple[str, ...] = ()


class LockResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``lock`` found. ``stale``: the lock file did not say this before."""

    versions: list[LockedVersion]
    changes: list[LockChange]
    warnings: list[Finding]
    written: bool
    asked: bool = False  # a server was asked, or a folder read, whose answer may differ next time

    @property
    def stale(self) -> bool:
        return bool(self.changes)


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """A signed verdict of the eval gate on one effective digest."""

    id: str
    agent: str
    behaviour_digest: str
    effective_digest: str
    golden_digest: str
    rubric_digest: str
    verdict: str
    details: dict[str, Any]
    signer: str  # the signing key's id
    created_at: float
