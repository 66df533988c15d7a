"""What people do with rollouts: deploy, look, steer, undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from lockgate.clock import Clock
from lockgate.errors import Conflict, InputError, NotFound, Refused
from lockgate.project.model import Project
from lockgate.rollouts import controller, evidence, gather, store
from lockgate.rollouts.admission import named
from lockgate.rollouts.decision import decide, harm_threshold
from lockgate.rollouts.deploying import Deployed, Deploying
from lockgate.rollouts.evidence import Traffic
from lockgate.rollouts.model import Decision, Deployment, Event, Plan, Profile, Reading, Rollout, Situation
from lockgate.runs import Arm
from lockgate.storage import audit
from lockgate.storage.engine import Database

if TYPE_CHECKING:
    from lockgate.versions.service import Versions

__all__ = ["Deployed", "RolloutStatus", "Rollouts"]


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
        self._deploying = Deploying(control, clock, lambda: self._versions, project)

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
        return self._deploying.deploy(
            ref, environment, direct=direct, override_reason=override_reason, supersede=supersede, by=by
        )

    def retry(self, ref: str, environment: str | None = None, *, by: str = "local") -> Rollout:
        """Start again with the candidate of an ended rollout. Its evidence goes on where it stood.

        Raises :class:`Refused` when that evidence alone would roll it back again.
        """
        old = self.get(ref, environment)
        if old.live:
            raise Conflict(f"rollout {old.id} is still {old.status}", remedy=f"lockgate rollout abort {old.id}")
        if old.status == "promoted":
            raise Conflict(f"rollout {old.id} was promoted", remedy=f"lockgate rollout undo {old.agent}")
        return self._deploying.again(old, by=by)

    def check_environment(self, environment: str) -> None:
        """Raises :class:`NotFound` for one that the project does not have."""
        self._deploying.check_environment(environment)

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
        return self._deploying.plan_of(ref, environment)

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
                settings=self._deploying.settings(deployed.previous.behaviour_digest, environment, agent),
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
