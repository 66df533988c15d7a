"""The rollout controller: load, decide on a copy, save in one transaction.

Level-triggered: a tick looks at what is, never at what happened, so a crash between any two steps is made good by
the next tick, and a tick that finds nothing to do writes nothing but the route's lease.
"""

from __future__ import annotations

import logging
from typing import Literal, Protocol

import msgspec
from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.gateway.model import Route
from lockgate.rollouts import gather, store
from lockgate.rollouts.decision import SPLIT_ALPHA, decide, show
from lockgate.rollouts.leader import Leadership
from lockgate.rollouts.model import Decision, Deployment, Event, Reading, Rollout, Situation
from lockgate.storage import audit
from lockgate.storage.engine import Database

_log = logging.getLogger(__name__)

LEASE_SECONDS = 12.0
"""How long gateways may serve a candidate without hearing from the controller; after that, stable only."""
HOST_SECONDS = 10.0
"""A host that was not heard of for this long does not count as serving."""


Severity = Literal["critical", "warning", "info"]


class RaiseAlert(Protocol):
    """What the controller tells people with; raising the same ``key`` again changes nothing but the time."""

    def __call__(self, key: str, kind: str, severity: Severity, subject: str, message: str) -> object: ...


def log_alert(key: str, kind: str, severity: Severity, subject: str, message: str) -> None:
    """The alert sink when there is no other: the log."""
    _log.warning("%s %s %s: %s", severity, kind, subject, message)


class Controller:
    """Moves live rollouts on. One process at a time runs it: the leader."""

    def __init__(
        self, control: Database, clock: Clock, *, alert: RaiseAlert = log_alert, lead: Leadership | None = None
    ) -> None:
        self._control = control
        self._clock = clock
        self._alert = alert
        self._lead = lead

    def tick(self) -> None:
        """Reconcile every live rollout. One that fails is logged and tried again; the others go on."""
        with self._control.read() as connection:
            live = [rollout.id for rollout in store.list_rollouts(connection, live=True, limit=10_000)]
        self._reconcile_all(live)

    def tick_direct(self) -> None:
        """Only the rollouts without phases whose candidate has a host now: what they wait for has happened.

        Cheap when there are none, so that it may be called many times a second.
        """
        with self._control.read() as connection:
            live = store.live_candidates(connection)
            if not live:
                return
            ready = store.ready_digests(connection, self._clock() - HOST_SECONDS)
            able = [rollout_id for rollout_id, candidate in live if candidate in ready]
            found = [store.get_rollout(connection, rollout_id) for rollout_id in able]
        self._reconcile_all([one.id for one in found if one and one.status == "running" and not one.current])

    def _reconcile_all(self, live: list[str]) -> None:
        for rollout_id in reversed(live):
            try:
                self.reconcile(rollout_id)
            except Exception:  # the boundary of one rollout's work
                _log.exception("rollout %s: this tick failed, the next one tries again", rollout_id)

    def reconcile(self, rollout_id: str) -> Decision | None:
        """One step of one rollout; None when it is over, or somebody changed it meanwhile."""
        now = self._clock()
        with self._control.read() as connection:
            rollout = store.get_rollout(connection, rollout_id)
            if rollout is None or not rollout.live:
                return None
            ready = rollout.candidate.effective_digest in store.ready_digests(connection, now - HOST_SECONDS)
            known = gather.load(connection, rollout)
            fresh = gather.bring_up_to_date(connection, rollout, known, now)
            seen = gather.situation(connection, rollout, fresh, now=now, ready=ready)
        decision = decide(rollout.plan, seen)
        self._tell(rollout, decision, seen, now)
        with self._control.write() as connection:
            if self._lead is not None:
                self._lead.check(connection)
            saved = self._save(connection, rollout, decision, seen.readings, ready=ready, now=now)
            if saved:
                gather.save(connection, rollout, known, fresh, now)
        return decision if saved else None

    def _save(
        self,
        connection: Connection,
        rollout: Rollout,
        decision: Decision,
        found: tuple[Reading, ...],
        *,
        ready: bool,
        now: float,
    ) -> bool:
        deployed = store.deployment(connection, rollout.environment, rollout.agent)
        if deployed is None or deployed.stable != rollout.baseline:
            return abort(connection, rollout, reason="the stable version changed under it", by="controller", now=now)
        if decision.action == "rollback":
            return roll_back(connection, rollout, deployed, decision.message, found, now=now)
        if decision.action == "promote":
            return promote(connection, rollout, deployed, decision.message, found, by="controller", now=now)
        after = rollout
        if decision.action == "advance":
            after = msgspec.structs.replace(rollout, phase=rollout.phase + 1, phase_started_at=now, updated_at=now)
        elif ready and not _is_open(store.route(connection, rollout.environment, rollout.agent), rollout):
            # A phase's clock runs while the candidate can be reached.
            after = msgspec.structs.replace(rollout, phase_started_at=now, updated_at=now)
        if after is not rollout:
            if not store.update_rollout(connection, rollout, after):
                return False
            phase = after.current
            name = phase.name if phase else "direct"
            message = f"{name}: {decision.message}" if decision.action == "advance" else f"{name}: a host is ready"
            store.add_event(connection, rollout.id, Event(at=now, kind="phase", message=message, data=_data(found)))
        elif store.get_rollout(connection, rollout.id) != rollout:
            return False
        wanted = route_of(after, deployed, ready=ready, now=now)
        store.save_route(connection, wanted, renew_before=now + LEASE_SECONDS * 2 / 3)
        return True

    def _tell(self, rollout: Rollout, decision: Decision, seen: Situation, now: float) -> None:
        """Before the change is saved: should saving fail, the next tick says the same, and no alert is ever lost."""
        subject = f"{rollout.agent} in {rollout.environment}"
        if decision.action == "rollback":
            self._alert(f"rollout:{rollout.id}", "rollback", "critical", subject, f"rolled back: {decision.message}")
            return
        if seen.sample_ratio >= 1 / SPLIT_ALPHA:
            message = f"units of one arm are missing: E = {show(seen.sample_ratio)} against the stated weights"
            self._alert(f"sample_ratio:{rollout.id}", "sample_ratio", "warning", subject, message)
        if decision.action == "wait":
            limit = rollout.plan.max_seconds
            if limit is not None and now - rollout.created_at > limit:
                message = f"inconclusive after {limit:.0f} s: {decision.message}; promote or abort it by hand"
                self._alert(f"rollout:{rollout.id}", "rollout_inconclusive", "warning", subject, message)


def route_of(rollout: Rollout, deployed: Deployment, *, ready: bool, now: float) -> Route:
    """The route of a live rollout: leased, and closed to the candidate until a host serves it."""
    phase = rollout.current
    opened = ready and phase is not None
    return Route(
        environment=rollout.environment,
        agent=rollout.agent,
        stable=deployed.stable,
        settings=deployed.settings,
        candidate=rollout.candidate,
        rollout_id=rollout.id,
        weight=phase.weight if opened and phase else 0.0,
        mirror=phase.mirror if opened and phase else 0.0,
        lease_until=now + LEASE_SECONDS,
    )


def stable_route(deployed: Deployment) -> Route:
    """The route when no rollout is live. It never lapses."""
    return Route(
        environment=deployed.environment,
        agent=deployed.agent,
        stable=deployed.stable,
        settings=deployed.settings,
    )


def promote(
    connection: Connection,
    rollout: Rollout,
    deployed: Deployment,
    reason: str,
    found: tuple[Reading, ...],
    *,
    by: str,
    now: float,
) -> bool:
    """The candidate becomes stable; the baseline stays warm for ``undo``. False when somebody else was first."""
    if not _end(connection, rollout, "promoted", reason, found, by=by, now=now):
        return False
    after = Deployment(
        environment=rollout.environment,
        agent=rollout.agent,
        stable=rollout.candidate,
        settings=rollout.settings,
        previous=deployed.stable,
        warm_until=now + rollout.plan.warm,
        updated_at=now,
        updated_by=by,
    )
    store.save_deployment(connection, after)
    store.save_route(connection, stable_route(after))
    return True


def roll_back(
    connection: Connection,
    rollout: Rollout,
    deployed: Deployment,
    reason: str,
    found: tuple[Reading, ...],
    *,
    now: float,
) -> bool:
    """The candidate gets nothing any more, and is held back. False when somebody else was first."""
    if not _end(connection, rollout, "rolled_back", reason, found, by="controller", now=now):
        return False
    _hold_candidate(connection, rollout, f"rolled back: {reason}", by="controller", now=now)
    store.save_route(connection, stable_route(deployed))
    return True


def abort(connection: Connection, rollout: Rollout, *, reason: str, by: str, now: float) -> bool:
    """End it without a verdict and hold the candidate. False when somebody else was first."""
    if not _end(connection, rollout, "aborted", reason, (), by=by, now=now):
        return False
    _hold_candidate(connection, rollout, f"aborted: {reason}", by=by, now=now)
    deployed = store.deployment(connection, rollout.environment, rollout.agent)
    if deployed is not None:
        store.save_route(connection, stable_route(deployed))
    return True


def supersede(connection: Connection, rollout: Rollout, *, reason: str, by: str, now: float) -> bool:
    """End it because something else is wanted. Nothing is held: nobody said that the candidate is bad."""
    if not _end(connection, rollout, "aborted", reason, (), by=by, now=now):
        return False
    deployed = store.deployment(connection, rollout.environment, rollout.agent)
    if deployed is not None:
        store.save_route(connection, stable_route(deployed))
    return True


def _end(
    connection: Connection,
    rollout: Rollout,
    status: str,
    reason: str,
    found: tuple[Reading, ...],
    *,
    by: str,
    now: float,
) -> bool:
    after = msgspec.structs.replace(rollout, status=status, reason=reason, updated_at=now, ended_at=now)
    if not store.update_rollout(connection, rollout, after):
        return False
    store.add_event(connection, rollout.id, Event(at=now, kind=status, message=reason, data=_data(found)))
    audit.record(
        connection,
        at=now,
        actor=by,
        action=f"rollout.{status}",
        subject=f"{rollout.environment}/{rollout.agent}",
        details={
            "rollout": rollout.id,
            "reason": reason,
            "candidate": rollout.candidate.effective_digest,
            "baseline": rollout.baseline.effective_digest,
        },
    )
    return True


def _hold_candidate(connection: Connection, rollout: Rollout, reason: str, *, by: str, now: float) -> None:
    digest = rollout.candidate.effective_digest
    store.put_hold(connection, rollout.environment, rollout.agent, digest, reason=reason, by=by, now=now)


def _is_open(route: Route | None, rollout: Rollout) -> bool:
    return route is not None and route.rollout_id == rollout.id and (route.weight > 0 or route.mirror > 0)


def _data(found: tuple[Reading, ...]) -> dict[str, object]:
    return {"readings": [_finite(reading) for reading in found]}


def _finite(reading: Reading) -> dict[str, object]:
    """JSON has no infinity: a safe E that is beyond doubt is kept as a very large number."""
    capped = msgspec.structs.replace(reading, harm=min(reading.harm, 1e300), safe=min(reading.safe, 1e300))
    return dict(msgspec.to_builtins(capped))
