"""What people do with rollouts: deploy, look, steer, undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.errors import Conflict, InputError, NotFound, Refused
from lockgate.ids import new_id
from lockgate.project.model import Project
from lockgate.project.service import environment_policy
from lockgate.rollouts import controller, evidence, gather, store
from lockgate.rollouts.admission import Refusal, floating_allowed, named, placed, placement_of, plan_of, refusals
from lockgate.rollouts.decision import decide, harm_threshold
from lockgate.rollouts.evidence import Traffic
from lockgate.rollouts.model import Decision, Deployment, Event, Plan, Profile, Reading, Rollout, Situation
from lockgate.rollouts.plan import direct as direct_plan
from lockgate.runs import Arm
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.versions import resolved
from lockgate.versions.model import AgentSettings, VersionRef

if TYPE_CHECKING:
    from lockgate.versions.service import Versions

__all__ = ["Deployed", "RolloutStatus", "Rollouts"]


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy did: the version serves already, has settings that changed, or is on its way out in a rollout."""

    outcome: Literal["stable", "settings", "rollout"]
    environment: str
    version: VersionRef
    rollout: Rollout | None = None
    message: str = ""


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rollout stands now, computed from the stored evidence."""

    rollout: Rollout
    decision: Decision | None  # None when it is over
    readings: tuple[Reading, ...]
    harm_at: float  # m/α
    safe_at: float  # 1/β
    traffic: Traffic
    situation: Situation | None
    differences: dict[str, tuple[float, float]]
    events: list[Event]


class Rollouts:
    """Deployments and rollouts of one project. Every change is one transaction, with its line in the audit log."""

    def __init__(
        self, control: Database, clock: Clock, *, versions: Versions | Callable[[], Versions], project: Project
    ) -> None:
        """``versions`` may be a function that opens them: who only looks never does."""
        self._control = control
        self._clock = clock
        self._given = versions
        self._project = project

    @property
    def _versions(self) -> Versions:
        if callable(self._given):
            self._given = self._given()
        return self._given

    # --- going out --------------------------------------------------------------------------------------------

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
        """Bring a version to an environment: the first one at once, later ones by a rollout.

        ``direct`` skips the phases (the candidate still waits for its host). ``override_reason`` goes past the
        environment's policy and a hold, and is written to the audit log. ``supersede`` ends a rollout that is on, for
        this reason. Raises :class:`Refused` when the policy says no, :class:`Conflict` when a rollout is on already.
        """
        self.check_environment(environment)
        behaviour = self._versions.find(ref)
        version = self._versions.load(behaviour)
        settings = self._settings(behaviour, environment, version.agent)
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

    def retry(self, ref: str, environment: str | None = None, *, by: str = "local") -> Rollout:
        """Start again with the candidate of an ended rollout. Its evidence goes on where it stood.

        Raises :class:`Refused` when that evidence alone would roll it back again.
        """
        old = self.get(ref, environment)
        if old.live:
            raise Conflict(f"rollout {old.id} is still {old.status}", remedy=f"lockgate rollout abort {old.id}")
        if old.status == "promoted":
            raise Conflict(f"rollout {old.id} was promoted", remedy=f"lockgate rollout undo {old.agent}")
        settings = self._settings(old.candidate.behaviour_digest, old.environment, old.agent)
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

    # --- looking ----------------------------------------------------------------------------------------------

    def get(self, ref: str, environment: str | None = None) -> Rollout:
        """A rollout by id (or the start of one), or the latest of an agent. Raises :class:`NotFound`."""
        with self._control.read() as connection:
            if ref.startswith("rollout_"):
                found = [one for one in store.list_rollouts(connection, limit=10_000) if one.id.startswith(ref)]
                if len(found) > 1:
                    raise InputError(f"{ref!r} fits {len(found)} rollouts", remedy="give more of the id")
            else:
                found = store.list_rollouts(connection, environment=environment, agent=ref, limit=1)
        if not found:
            where = f" in {environment!r}" if environment else ""
            raise NotFound(f"no rollout of {ref!r}{where}", remedy="lockgate rollout list")
        return found[0]

    def list(
        self, *, environment: str | None = None, agent: str | None = None, live: bool = False, limit: int = 100
    ) -> Sequence[Rollout]:
        """Newest first."""
        with self._control.read() as connection:
            return store.list_rollouts(connection, environment=environment, agent=agent, live=live, limit=limit)

    def deployments(self, environment: str | None = None) -> Sequence[Deployment]:
        """What serves where."""
        with self._control.read() as connection:
            return store.list_deployments(connection, environment)

    def status(self, ref: str, environment: str | None = None) -> RolloutStatus:
        """Where the rollout stands, with the decision that its evidence gives now."""
        rollout, now = self.get(ref, environment), self._clock()
        with self._control.read() as connection:
            known = gather.load(connection, rollout)
            ready = store.ready_digests(connection, now - controller.HOST_SECONDS)
            seen = gather.situation(
                connection, rollout, known, now=now, ready=rollout.candidate.effective_digest in ready
            )
            history = store.events(connection, rollout.id)
        found = {
            spec.name: interval
            for spec in rollout.plan.metrics
            if (interval := evidence.difference(spec, known.states[spec.name], rollout.plan.alpha)) is not None
        }
        return RolloutStatus(
            rollout=rollout,
            decision=decide(rollout.plan, seen) if rollout.live else None,
            readings=seen.readings,
            harm_at=harm_threshold(rollout.plan),
            safe_at=1 / rollout.plan.beta,
            traffic=known.traffic,
            situation=seen if rollout.live else None,
            differences=found,
            events=history,
        )

    def recompute(self, ref: str, environment: str | None = None) -> tuple[Reading, ...]:
        """The readings computed again from the runs: what the stored evidence must agree with."""
        rollout, now = self.get(ref, environment), self._clock()
        with self._control.read() as connection:
            known = gather.empty(rollout, gather.load(connection, rollout))
            while True:
                further = gather.bring_up_to_date(connection, rollout, known, now)
                if further == known:
                    return gather.readings(rollout, known)
                known = further

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

    # --- steering ---------------------------------------------------------------------------------------------

    def promote(self, ref: str, environment: str | None = None, *, reason: str, by: str = "local") -> Rollout:
        """Make the candidate stable now, whatever phase it is in. Refused while no host serves it."""
        rollout, now = self._live(ref, environment), self._clock()
        with self._control.write() as connection:
            deployed = store.deployment(connection, rollout.environment, rollout.agent)
            ready = store.ready_digests(connection, now - controller.HOST_SECONDS)
            if deployed is None or rollout.candidate.effective_digest not in ready:
                raise Refused(
                    f"no host serves {named(rollout.candidate)} yet", remedy="start lockgate up, or wait a moment"
                )
            found = gather.readings(rollout, gather.load(connection, rollout))
            done = controller.promote(connection, rollout, deployed, f"by hand: {reason}", found, by=by, now=now)
            self._check_done(done, rollout)
        return self.get(rollout.id)

    def abort(self, ref: str, environment: str | None = None, *, reason: str, by: str = "local") -> Rollout:
        """Back to stable at once; the candidate is held until somebody retries or overrides."""
        rollout, now = self._live(ref, environment), self._clock()
        with self._control.write() as connection:
            self._check_done(controller.abort(connection, rollout, reason=reason, by=by, now=now), rollout)
        return self.get(rollout.id)

    def pause(self, ref: str, environment: str | None = None, *, reason: str = "", by: str = "local") -> Rollout:
        """Stay in this phase. Traffic goes on, and harm still rolls back."""
        return self._turn(self._live(ref, environment), "paused", reason, by)

    def resume(self, ref: str, environment: str | None = None, *, reason: str = "", by: str = "local") -> Rollout:
        """Go on after a pause."""
        return self._turn(self._live(ref, environment), "running", reason, by)

    def end(self, rollout: Rollout, *, reason: str, by: str) -> None:
        """End a rollout because something else is wanted; its candidate is not held."""
        with self._control.write() as connection:
            done = controller.supersede(connection, rollout, reason=reason, by=by, now=self._clock())
            self._check_done(done, rollout)

    def undo(self, agent: str, environment: str, *, reason: str, by: str = "local", hold: bool = True) -> Deployment:
        """The previous version serves again at once; what served is held, and a rollout that is on is aborted.

        Without ``hold`` it may be deployed again: the desired state has changed, nobody said that it is bad.
        Refused when there is no previous version, or it is not warm any more.
        """
        now = self._clock()
        end = controller.abort if hold else controller.supersede
        with self._control.write() as connection:
            store.one_at_a_time(connection, environment, agent)
            deployed = store.deployment(connection, environment, agent)
            if deployed is None:
                raise NotFound(f"{agent!r} is not deployed in {environment!r}", remedy="lockgate deploy")
            if deployed.previous is None or (deployed.warm_until or 0.0) <= now:
                raise Refused(
                    f"{agent} in {environment!r} has no warm previous version",
                    remedy=f"lockgate deploy {agent}@DIGEST --env {environment} --direct",
                )
            for rollout in store.list_rollouts(connection, environment=environment, agent=agent, live=True):
                end(connection, rollout, reason=f"undo: {reason}", by=by, now=now)
            undone = deployed.stable
            after = Deployment(
                environment=environment,
                agent=agent,
                stable=deployed.previous,
                settings=self._settings(deployed.previous.behaviour_digest, environment, agent),
                updated_at=now,
                updated_by=by,
            )
            store.save_deployment(connection, after)
            store.save_route(connection, controller.stable_route(after))
            if hold:
                store.put_hold(
                    connection, environment, agent, undone.effective_digest, reason=f"undone: {reason}", by=by, now=now
                )
            audit.record(
                connection,
                at=now,
                actor=by,
                action="undo",
                subject=f"{environment}/{agent}",
                details={"reason": reason, "from": undone.effective_digest, "to": deployed.previous.effective_digest},
            )
        return after

    # --- the data plane ---------------------------------------------------------------------------------------

    def assign(self, rollout_id: str, key: str, weight: float, now: float) -> Arm:
        """See :func:`lockgate.rollouts.store.assign`."""
        return store.assign(self._control, rollout_id, key, weight, now)

    # --- inside -----------------------------------------------------------------------------------------------

    def _settings(self, behaviour: str, environment: str, agent: str) -> AgentSettings:
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

    def _turn(self, rollout: Rollout, status: Literal["running", "paused"], reason: str, by: str) -> Rollout:
        if rollout.status == status:
            return rollout
        now = self._clock()
        after = msgspec.structs.replace(rollout, status=status, reason=reason, updated_at=now)
        with self._control.write() as connection:
            self._check_done(store.update_rollout(connection, rollout, after), rollout)
            verb = "paused" if status == "paused" else "resumed"
            said = f"{verb} by {by}" + (f": {reason}" if reason else "")
            store.add_event(connection, rollout.id, Event(at=now, kind=verb, message=said))
            audit.record(
                connection,
                at=now,
                actor=by,
                action=f"rollout.{verb}",
                subject=f"{rollout.environment}/{rollout.agent}",
                details={"rollout": rollout.id, "reason": reason},
            )
        return after

    def _live(self, ref: str, environment: str | None) -> Rollout:
        rollout = self.get(ref, environment)
        if not rollout.live:
            raise Conflict(
                f"rollout {rollout.id} of {rollout.agent} is over: {rollout.status}",
                remedy=f"lockgate rollout retry {rollout.id}, or deploy another version",
            )
        return rollout

    def _check_done(self, done: bool, rollout: Rollout) -> None:
        if not done:
            raise Conflict(f"rollout {rollout.id} changed meanwhile", remedy="look at it again, then repeat")

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
