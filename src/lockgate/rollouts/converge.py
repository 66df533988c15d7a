"""Brings an environment to what the project says of it: what ``lockgate apply`` and GitOps do.

Each agent is looked at by itself: one that cannot be read, or is refused, keeps nobody else waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from lockgate.clock import Clock
from lockgate.errors import LockgateError
from lockgate.project.model import Placement, Project
from lockgate.project.service import environment_policy
from lockgate.rollouts import controller, store
from lockgate.rollouts.admission import named, placed, refusals, short
from lockgate.rollouts.model import Deployment, Rollout
from lockgate.rollouts.service import Rollouts
from lockgate.storage.engine import Database
from lockgate.versions.model import AgentSettings, VersionRef
from lockgate.versions.service import Versions

Status = Literal["Synced", "OutOfSync", "Progressing", "Degraded"]
Action = Literal["none", "deploy", "rollout", "direct", "settings", "rollback", "end", "held", "refused", "error"]
CHANGES: tuple[Action, ...] = ("deploy", "rollout", "direct", "settings", "rollback", "end")
"""Actions that change something; the others say why nothing is done."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One agent: what serves, what ought to, and what is to be done about it."""

    environment: str
    agent: str
    action: Action
    status: Status
    message: str
    current: VersionRef | None = None
    wanted: VersionRef | None = None


class Environments:
    """The environments of one project file, and what serves in them."""

    def __init__(
        self,
        control: Database,
        clock: Clock,
        *,
        versions: Versions,
        project: Project,
        rollouts: Rollouts,
        unchanging: bool = False,
    ) -> None:
        """``unchanging``: the files are a commit's, so that each is read once."""
        self._unchanging = unchanging
        self._found: dict[tuple[str, str], str] = {}
        self._control = control
        self._clock = clock
        self._versions = versions
        self._project = project
        self._rollouts = rollouts

    def plan(self, environment: str) -> list[Step]:
        """What :meth:`apply` would do, agent by agent."""
        self._rollouts.check_environment(environment)
        placements = self._project.config.environments[environment].agents
        return [self.look(environment, agent, placements[agent]) for agent in sorted(placements)]

    def placement(self, environment: str, agent: str) -> Placement:
        """What the project says of an agent that :meth:`plan` named."""
        return self._project.config.environments[environment].agents[agent]

    def apply(self, environment: str, *, by: str, only: Sequence[str] | None = None) -> list[Step]:
        """Do what :meth:`plan` says; returns what was done. An agent that fails is a step with ``error``."""
        return [self.take(step, by=by) for step in self.plan(environment) if only is None or step.agent in only]

    def take(self, step: Step, *, by: str, why: str = "the environment says so") -> Step:
        """One step of a plan, done. Two that do the same at once: one does it, the other is told."""
        if step.action not in CHANGES or step.wanted is None:
            return step
        ref, environment = f"{step.agent}@{step.wanted.behaviour_digest}", step.environment
        try:
            if step.action == "rollback":
                self._rollouts.undo(step.agent, environment, reason=why, by=by, hold=False)
                message = f"{named(step.wanted)} was warm: it serves again"
            elif step.action == "end":
                self._rollouts.end(self._rollouts.get(step.agent, environment), reason=why, by=by)
                message = f"the rollout is ended: {why}"
            else:
                message = self._rollouts.deploy(ref, environment, supersede=why, by=by).message
        except LockgateError as failure:
            return msgspec.structs.replace(step, action="error", status="Degraded", message=failure.message)
        done: Status = "Progressing" if step.action in ("deploy", "rollout", "direct") else "Synced"
        return msgspec.structs.replace(step, status=done, message=message)

    def look(self, environment: str, agent: str, placement: Placement) -> Step:
        """Where one agent stands."""
        now = self._clock()
        with self._control.read() as connection:
            deployed = store.deployment(connection, environment, agent)
            live = store.list_rollouts(connection, environment=environment, agent=agent, live=True)
            serving = store.ready_digests(connection, now - controller.HOST_SECONDS)
        current = deployed.stable if deployed else None
        try:
            behaviour = self._find(agent, str(placement.version))
            wanted = self._versions.ref(behaviour, environment)
            settings = placed(self._project, self._versions.settings(behaviour), environment, agent)
            if wanted.agent != agent:
                raise LockgateError(f"version {placement.version!r} is one of {wanted.agent!r}, not of {agent!r}")
        except LockgateError as wrong:
            return Step(
                environment=environment,
                agent=agent,
                action="error",
                status="Degraded",
                message=wrong.message,
                current=current,
            )
        action, status, message = self._decide(
            environment, agent, placement, wanted, settings, deployed, live[0] if live else None, serving, now
        )
        return Step(
            environment=environment,
            agent=agent,
            action=action,
            status=status,
            message=message,
            current=current,
            wanted=wanted,
        )

    def _find(self, agent: str, version: str) -> str:
        known = self._found.get((agent, version)) if self._unchanging else None
        if known is None:
            known = self._found[agent, version] = self._versions.find(_reference(self._project.root, agent, version))
        return known

    def _decide(
        self,
        environment: str,
        agent: str,
        placement: Placement,
        wanted: VersionRef,
        settings: AgentSettings,
        deployed: Deployment | None,
        live: Rollout | None,
        serving: set[str],
        now: float,
    ) -> tuple[Action, Status, str]:
        if live is not None and live.candidate == wanted:
            return "none", "Progressing", f"{live.id} is {live.status}"
        if deployed is not None and deployed.stable == wanted:
            if live is not None:
                return "end", "OutOfSync", f"{live.id} brings {named(live.candidate)}, which is not wanted"
            if deployed.settings != settings:
                return "settings", "OutOfSync", "its settings differ"
            if wanted.effective_digest not in serving:
                return "none", "Progressing", "no host serves it yet"
            return "none", "Synced", ""
        with self._control.read() as connection:
            held = store.hold(connection, environment, agent, wanted.effective_digest)
        if held is not None:
            return "held", "Degraded", f"{named(wanted)} is held back: {held}"
        if deployed is not None and deployed.previous == wanted and (deployed.warm_until or 0.0) > now:
            # It served a moment ago: the way back needs no gate, as `undo` needs none.
            return "rollback", "OutOfSync", f"{short(deployed.stable.behaviour_digest)} → {named(wanted)}, at once"
        version = self._versions.load(wanted.behaviour_digest)
        if environment_policy(self._project, environment, agent).level == "enforce":
            against = refusals(self._project, self._versions, version, settings, wanted, environment)
            if against:
                return "refused", "Degraded", f"{named(wanted)}: {'; '.join(one.why for one in against)}"
        if deployed is None:
            return "deploy", "OutOfSync", f"{named(wanted)} would be the first"
        action: Action = "direct" if placement.strategy == "direct" else "rollout"
        return action, "OutOfSync", f"{short(deployed.stable.behaviour_digest)} → {short(wanted.behaviour_digest)}"


def _reference(root: Path, agent: str, version: str) -> str:
    if version.endswith((".yaml", ".yml")):
        return str(root / version)
    return f"{agent}@{version}"
