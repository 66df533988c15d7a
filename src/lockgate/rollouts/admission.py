"""Whether a version may go to an environment: what its policy has against it, and by which plan it would go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lockgate.project.model import FloatingAllowance, Placement, Project
from lockgate.project.service import environment_policy, resolve_provider
from lockgate.rollouts import plan
from lockgate.rollouts.model import Plan
from lockgate.versions.model import AgentSettings, AgentVersion, ModelRef, VersionRef

if TYPE_CHECKING:
    from lockgate.versions.service import Versions


class Refusal(msgspec.Struct, frozen=True):
    """One thing an environment has against a version, and what to do about it."""

    why: str
    remedy: str


def refusals(
    project: Project,
    versions: Versions,
    version: AgentVersion,
    settings: AgentSettings,
    candidate: VersionRef,
    environment: str,
) -> list[Refusal]:
    """What the environment's policy refuses; empty when the version may go there."""
    policy = environment_policy(project, environment, version.agent)
    found: list[Refusal] = []
    if policy.require_owner and not (settings.owner or project.config.owner):
        found.append(Refusal("it has no owner", "add owner: to the agent file"))
    if policy.require_pinned_model:
        found += [
            Refusal(f"model {model.name!r} is not pinned: {why}", "name a dated model, or lock its revision")
            for model, why, allowance in _floating(project, versions, version, environment)
            if allowance is None
        ]
    if policy.require_gate:
        gate = versions.gate(candidate, environment)
        found += [Refusal(one.why, one.remedy) for one in gate.refusals]
    return found


def floating_allowed(
    project: Project, versions: Versions, version: AgentVersion, environment: str
) -> list[dict[str, str | None]]:
    """The floating names that the environment lets in by somebody's name, for the audit log."""
    return [
        {"model": f"{model.provider}/{model.name}", "by": one.by, "reason": one.reason, "until": one.until}
        for model, _, one in _floating(project, versions, version, environment)
        if one is not None
    ]


def placed(project: Project, settings: AgentSettings, environment: str, agent: str) -> AgentSettings:
    """The settings with what the agent's placement in the environment puts in their place."""
    placement = placement_of(project, environment, agent)
    if placement is None:
        return settings
    changes = {name: value for name, value in placement.budgets.model_dump().items() if value is not None}
    if placement.rollout:
        changes["rollout"] = {**settings.rollout, **placement.rollout}
    return msgspec.structs.replace(settings, **changes)


def placement_of(project: Project, environment: str, agent: str) -> Placement | None:
    """What the project says of the agent in the environment, if it says anything."""
    known = project.config.environments.get(environment)
    return None if known is None else known.agents.get(agent)


def plan_of(project: Project, version: AgentVersion, settings: AgentSettings) -> Plan:
    """The version's rollout plan. Only the native loop can be shadowed: anything else could act outside our sight."""
    from lockgate.rollouts import scoring

    live = scoring.gated_specs(settings.evals, settings.rollout.get("gates") or {}, project.root)
    planned = plan.parse(settings.rollout, live)
    if version.framework.kind == "native":
        return planned
    phases = tuple(
        msgspec.structs.replace(phase, mirror=0.0) for phase in planned.phases if phase.weight or not phase.mirror
    )
    return msgspec.structs.replace(planned, phases=phases) if phases else plan.direct(planned)


def _floating(
    project: Project, versions: Versions, version: AgentVersion, environment: str
) -> list[tuple[ModelRef, str, FloatingAllowance | None]]:
    """Every floating name, why it floats, and who allowed it."""
    from lockgate.versions.deprecations import day
    from lockgate.versions.pins import allowed, floating

    rules = environment_policy(project, environment, version.agent).allow_floating
    today = day(versions.clock())
    found = []
    for model in (version.model, *version.fallbacks, *([version.triage] if version.triage else [])):
        provider = resolve_provider(project, model.provider, environment, version.agent)
        why = floating(provider.kind, provider.base_url, model)
        if why is not None:
            found.append((model, why, allowed(rules, model, today)))
    return found


def named(version: VersionRef) -> str:
    """``refund-triage@1a2b3c4d5e6f``."""
    return f"{version.agent}@{short(version.behaviour_digest)}"


def short(digest: str) -> str:
    """The twelve hex digits that are enough to type."""
    return digest.removeprefix("sha256:")[:12]
