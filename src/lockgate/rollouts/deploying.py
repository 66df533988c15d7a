"""Bringing a version out: whether it may go, and what then happens in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.errors import Conflict, NotFound, Refused
from lockgate.ids import new_id
from lockgate.project.model import Project
from lockgate.project.service import environment_policy
from lockgate.rollouts import controller, gather, store
from lockgate.rollouts.admission import Refusal, floating_allowed, named, placed, placement_of, plan_of, refusals
from lockgate.rollouts.decision import decide
from lockgate.rollouts.model import Deployment, Event, Plan, Profile, Rollout
from lockgate.rollouts.plan import direct as direct_plan
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.versions import resolved
from lockgate.versions.model import AgentSettings, VersionRef

if TYPE_CHECKING:
    from lockgate.versions.service import Versions


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy did: the version serves already, has settings that changed, or is on its way out in a rollout."""

    outcome: Literal["stable", "settings", "rollout"]
    environment: str
    version: VersionRef
    rollout: Rollout | None = None
    message: str = ""


class Deploying:
    """Brings versions of one project to its environments."""

    def __init__(self, control: Database, clock: Clock, versions: Callable[[], Versions], project: Project) -> None:
        self._control = control
        self._clock = clock
        self._open_versions = versions
        self._project = project

    @property
    def _versions(self) -> Versions:
        return self._open_versions()

    def deploy(
        self,
        ref: str,
        environment: str,
        *,
        direct: bool = False,
        override_reason: str | None = None,
        supersede: str | None = None,
        by: str = "local",
    ) -> Deployed:
        """See :meth:`lockgate.rollouts.service.Rollouts.deploy`."""
        self.check_environment(environment)
        behaviour = self._versions.find(ref)
        version = self._versions.load(behaviour)
        settings = self.settings(behaviour, environment, version.agent)
        candidate = self._versions.ref(behaviour, environment)
        placement = placement_of(self._project, environment, version.agent)
        direct = direct or (placement is not None and placement.strategy == "direct")
        refused = refusals(self._project, self._versions, version, settings, candidate, environment)
        planned = plan_of(self._project, version, settings)
        level = environment_policy(self._project, environment, version.agent).level
        let_in = [] if level == "enforce" else refused
        refused = refused if level == "enforce" else []
        warned = f"; {level}: {'; '.join(one.why for one in let_in)}" if let_in and level == "warn" else ""
        now = self._clock()
        with self._control.write() as connection:
            store.one_at_a_time(connection, environment, candidate.agent)
            resolved.record(connection, candidate, self._versions.providers(version, environment), now)
            held = store.hold(connection, environment, candidate.agent, candidate.effective_digest)
            if held is not None:
                remedy = "lockgate rollout retry, or lockgate deploy --override REASON"
                refused.append(Refusal(f"it is held back: {held}", remedy))
            deployed = store.deployment(connection, environment, candidate.agent)
            if deployed is not None and deployed.stable == candidate:
                return self._update_settings(connection, deployed, settings, by=by, now=now)
            if refused and not override_reason:
                raise _refusal(candidate, environment, refused)
            details: dict[str, object] = {"version": candidate.effective_digest, "direct": direct}
            if refused:
                details |= {"override": override_reason, "overridden": [one.why for one in refused]}
                store.drop_hold(connection, environment, candidate.agent, candidate.effective_digest)
            if let_in:
                details |= {"level": level, "let_in": [one.why for one in let_in]}
            for live in store.list_rollouts(connection, environment=environment, agent=candidate.agent, live=True):
                if supersede:
                    controller.supersede(connection, live, reason=supersede, by=by, now=now)
            if floats := floating_allowed(self._project, self._versions, version, environment):
                details["allow_floating"] = floats
            if override_reason or deployed is None or direct or let_in or floats:
                audit.record(
                    connection,
                    at=now,
                    actor=by,
                    action="deploy",
                    subject=f"{environment}/{candidate.agent}",
                    details=details,
                )
            if deployed is None:
                first = Deployment(
                    environment=environment,
                    agent=candidate.agent,
                    stable=candidate,
                    settings=settings,
                    updated_at=now,
                    updated_by=by,
                )
                store.save_deployment(connection, first)
                store.save_route(connection, controller.stable_route(first))
                return Deployed(
                    outcome="stable",
                    environment=environment,
                    version=candidate,
                    message=f"{named(candidate)} is the first version in {environment}: it serves at once{warned}",
                )
            if direct:
                planned = direct_plan(planned)
            rollout = _new(deployed, candidate, settings, planned, environment, by=by, now=now)
            self._begin(connection, rollout, deployed, f"from {named(deployed.stable)} to {named(candidate)}", now)
            serving = store.ready_digests(connection, now - controller.HOST_SECONDS)
            if direct and deployed.stable.effective_digest not in serving:
                reason = "direct: the stable version is not being served"  # nobody is cut off
                controller.promote(connection, rollout, deployed, reason, (), by=by, now=now)
                message = f"{named(candidate)} takes over in {environment} at once: nothing was being served{warned}"
                return Deployed(outcome="stable", environment=environment, version=candidate, message=message)
        phases = " → ".join(["direct"] if direct else [phase.name for phase in planned.phases]) + " → stable"
        message = f"{named(candidate)} goes out in {environment}: {phases}{warned}"
        return Deployed(outcome="rollout", environment=environment, version=candidate, rollout=rollout, message=message)

    def again(self, old: Rollout, *, by: str) -> Rollout:
        """Start an ended rollout's candidate once more, on the evidence there is.

        Raises :class:`Refused` when that evidence alone would roll it back again.
        """
        settings = self.settings(old.candidate.behaviour_digest, old.environment, old.agent)
        version = self._versions.load(old.candidate.behaviour_digest)
        refused = refusals(self._project, self._versions, version, settings, old.candidate, old.environment)
        if refused:
            raise _refusal(old.candidate, old.environment, refused)
        planned, now = plan_of(self._project, version, settings), self._clock()
        with self._control.write() as connection:
            deployed = store.deployment(connection, old.environment, old.agent)
            if deployed is None or deployed.stable == old.candidate:
                raise Conflict(
                    f"{named(old.candidate)} serves {old.environment} already", remedy="there is nothing to retry"
                )
            rollout = _new(deployed, old.candidate, settings, planned, old.environment, by=by, now=now)
            known = gather.load(connection, rollout)
            standing = decide(planned, gather.situation(connection, rollout, known, now=now, ready=True))
            if standing.verdict == "rollback":
                raise Refused(
                    f"the evidence against {named(old.candidate)} stands: {standing.message}",
                    remedy="change the agent and deploy the new version",
                )
            store.drop_hold(connection, old.environment, old.agent, old.candidate.effective_digest)
            self._begin(connection, rollout, deployed, f"retry of {old.id}", now)
        return rollout

    def plan_of(self, ref: str, environment: str) -> tuple[Plan, Profile]:
        """The plan a version would go out by, and its baseline's traffic: as seen, or assumed."""
        self.check_environment(environment)
        behaviour = self._versions.find(ref)
        version = self._versions.load(behaviour)
        planned = plan_of(self._project, version, self._versions.settings(behaviour))
        agent = version.agent
        with self._control.read() as connection:
            deployed = store.deployment(connection, environment, agent)
            if deployed is None:
                return planned, Profile()
            rollout = _new(deployed, deployed.stable, deployed.settings, planned, environment, by="", now=self._clock())
            return planned, gather.traffic_seen(connection, rollout)

    def settings(self, behaviour: str, environment: str, agent: str) -> AgentSettings:
        """What stands beside a version there: as it was locked, and as the environment overrides it."""
        return placed(self._project, self._versions.settings(behaviour), environment, agent)

    def _begin(self, connection: Connection, rollout: Rollout, deployed: Deployment, what: str, now: float) -> None:
        store.insert_rollout(connection, rollout)
        store.add_event(connection, rollout.id, Event(at=now, kind="started", message=what))
        store.save_route(connection, controller.route_of(rollout, deployed, ready=False, now=now))
        audit.record(
            connection,
            at=now,
            actor=rollout.created_by,
            action="rollout.started",
            subject=f"{rollout.environment}/{rollout.agent}",
            details={
                "rollout": rollout.id,
                "candidate": rollout.candidate.effective_digest,
                "baseline": rollout.baseline.effective_digest,
            },
        )

    def _update_settings(
        self,
        connection: Connection,
        deployed: Deployment,
        settings: AgentSettings,
        *,
        by: str,
        now: float,
    ) -> Deployed:
        name = named(deployed.stable)
        if deployed.settings == settings:
            message = f"{name} serves {deployed.environment} already"
            return Deployed(
                outcome="stable", environment=deployed.environment, version=deployed.stable, message=message
            )
        after = msgspec.structs.replace(deployed, settings=settings, updated_at=now, updated_by=by)
        store.save_deployment(connection, after)
        current = store.route(connection, deployed.environment, deployed.agent)
        wanted = current or controller.stable_route(after)
        store.save_route(connection, msgspec.structs.replace(wanted, settings=settings))
        audit.record(
            connection,
            at=now,
            actor=by,
            action="settings",
            subject=f"{deployed.environment}/{deployed.agent}",
            details={"version": deployed.stable.effective_digest},
        )
        message = f"{name} serves {deployed.environment} already; its settings are updated"
        return Deployed(outcome="settings", environment=deployed.environment, version=deployed.stable, message=message)

    def check_environment(self, environment: str) -> None:
        """Raises :class:`NotFound` for one that the project does not have."""
        known = self._project.config.environments
        if environment not in known:
            raise NotFound(f"no environment {environment!r}", remedy=f"lockgate.yaml has {', '.join(known)}")


def _refusal(candidate: VersionRef, environment: str, refused: Sequence[Refusal]) -> Refused:
    return Refused(
        f"{named(candidate)} may not go to {environment!r}: {'; '.join(one.why for one in refused)}",
        remedy="; ".join(one.remedy for one in refused),
    )


def _new(
    deployed: Deployment,
    candidate: VersionRef,
    settings: AgentSettings,
    planned: Plan,
    environment: str,
    *,
    by: str,
    now: float,
) -> Rollout:
    """A rollout that begins now; nothing of it is stored."""
    return Rollout(
        id=new_id("rollout"),
        environment=environment,
        agent=candidate.agent,
        baseline=deployed.stable,
        candidate=candidate,
        plan=planned,
        settings=settings,
        status="running",
        phase=0,
        phase_started_at=now,
        reason="",
        created_by=by,
        created_at=now,
        updated_at=now,
    )
