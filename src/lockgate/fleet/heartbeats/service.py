"""Takes heartbeats, says what each instance should run, and tells when one is missing or stays behind."""

from __future__ import annotations

from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.errors import NotFound
from lockgate.fleet.heartbeats import lag, store
from lockgate.fleet.heartbeats.model import Directive, Heartbeat, Instance, Reported, Wanted
from lockgate.fleet.model import Severity
from lockgate.fleet.service import Alerts
from lockgate.storage.engine import Database

MISSING, LAG, NO_HOST = "instance_missing", "instance_lag", "no_host"
HOST_MISSING = 15.0
"""Seconds without a heartbeat after which a host of ours is missing."""
HOST_FORGOTTEN = 3600.0
HOST_GRACE = 30.0
"""Seconds a version may be without a host before somebody is told: one that died is started again within a few."""


class Fleet:
    """The instances of every environment."""

    def __init__(self, control: Database, clock: Clock, alerts: Alerts) -> None:
        self._control = control
        self._clock = clock
        self._alerts = alerts
        self._hostless: dict[tuple[str, str], float] = {}

    def beat(self, environment: str, beat: Heartbeat, *, pull: str | None) -> Directive:
        """Note a heartbeat; the answer says what the instance should run.

        ``pull``: where versions are pulled from, ``oci://HOST/``; None when that is not known. Raises
        :class:`NotFound` when nothing is deployed there for the agent: then there is nothing it should run.
        """
        now = self._clock()
        with self._control.write() as connection:
            wanted = store.wanted(connection).get((environment, beat.agent))
            if wanted is None:
                raise NotFound(
                    f"no agent {beat.agent!r} is deployed in {environment!r}",
                    remedy=f"lockgate deploy {beat.agent} --env {environment}",
                )
            known = store.put(connection, environment, beat, now)
            since = _mark(connection, known, wanted)
        return Directive(
            environment=environment,
            agent=beat.agent,
            instance=beat.instance,
            config_version=wanted.behaviour_digest,
            effective_digest=wanted.effective_digest,
            file_version=wanted.file_version,
            up_to_date=lag.runs(beat.version, wanted) if beat.version else None,
            lag_seconds=0.0 if since is None else max(0.0, now - since),
            pull=None if pull is None else f"{pull}{beat.agent.lower()}@{wanted.behaviour_digest}",
        )

    def list(self, environment: str | None = None) -> list[Instance]:
        """Every instance, those that report and those that are ours."""
        now = self._clock()
        with self._control.read() as connection:
            reported = store.reported(connection, environment)
            wanted = store.wanted(connection)
            named = store.named(connection)
            ours = store.our_hosts(connection, now - HOST_FORGOTTEN)
            deployed = store.once_deployed(connection)
        found = [_reporting(one, wanted.get((one.environment, one.agent)), now) for one in reported]
        for host in ours:
            roles = [one for one in named if one.effective_digest == host.effective_digest]
            alive = now - host.heartbeat_at <= HOST_MISSING
            if not roles and not alive:
                continue  # it ended, and nobody wants it
            agent, behaviour = deployed.get(host.effective_digest, ("", ""))
            for one in roles or [store.Named("", agent, "retired", behaviour, host.effective_digest)]:
                should = wanted.get((one.environment, one.agent))
                if environment in (None, one.environment):
                    found.append(
                        Instance(
                            environment=one.environment,
                            agent=one.agent,
                            instance=host.id,
                            role=one.role,
                            runs=one.behaviour_digest or host.effective_digest,
                            should_run=should.behaviour_digest if should and one.role == "stable" else "",
                            lag=0.0,
                            status="ok" if alive else "missing",
                            message=f"pid {host.pid}",
                            last_seen_at=host.heartbeat_at,
                        )
                    )
        return sorted(found, key=lambda one: (one.environment, one.agent, one.role, one.instance))

    def served(self, environment: str) -> dict[str, set[str]]:
        """The behaviour digests that an environment names, by agent: what may be pulled there."""
        found: dict[str, set[str]] = {}
        with self._control.read() as connection:
            for one in store.named(connection):
                if one.environment == environment:
                    found.setdefault(one.agent, set()).add(one.behaviour_digest)
        return found

    def forget(self, environment: str, agent: str, instance: str) -> None:
        """Expect an instance no more. Raises :class:`NotFound`."""
        with self._control.write() as connection:
            if not store.forget(connection, environment, agent, instance):
                raise NotFound(
                    f"no instance {instance!r} of {agent!r} reports in {environment!r}", remedy="lockgate fleet list"
                )
        for kind in (MISSING, LAG):
            self._alerts.resolve(_key(kind, environment, agent, instance))

    def watch(self) -> None:
        """Tell of what is missing or stays behind, and that it is well again. Call it every few seconds."""
        now = self._clock()
        wrong: dict[str, tuple[str, str, str]] = {}
        with self._control.read() as connection:
            reported = store.reported(connection)
            wanted = store.wanted(connection)
            alive = {one.effective_digest for one in store.our_hosts(connection, now - HOST_MISSING)}
        changed = [
            (known, since)
            for known in reported
            if (since := lag.behind_since(known, wanted.get((known.environment, known.agent)))) != known.behind_since
        ]
        if changed:
            with self._control.write() as connection:
                for known, since in changed:
                    store.set_behind(connection, known, since)
        for known in reported:
            wrong |= _wrong(known, wanted.get((known.environment, known.agent)), now)
        wrong |= self._without_host(wanted, alive, now)
        for key, (kind, subject, message) in wrong.items():
            severity: Severity = "warning" if kind == LAG else "critical"
            self._alerts.raise_alert(key, kind, severity, subject, message)
        for alert in self._alerts.list(limit=10_000):
            if alert.kind in (MISSING, LAG, NO_HOST) and alert.key not in wrong:
                self._alerts.resolve(alert.key)

    def _without_host(
        self, wanted: dict[tuple[str, str], Wanted], alive: set[str], now: float
    ) -> dict[str, tuple[str, str, str]]:
        lost = {place for place, one in wanted.items() if one.effective_digest not in alive}
        self._hostless = {place: self._hostless.get(place, now) for place in lost}
        return {
            _key(NO_HOST, *place): (
                NO_HOST,
                f"{place[0]}/{place[1]}",
                f"no host has served {_short(wanted[place].behaviour_digest)} for {_span(now - since)}: "
                "the output of lockgate up says why",
            )
            for place, since in self._hostless.items()
            if now - since > HOST_GRACE
        }


def _mark(connection: Connection, known: Reported, wanted: Wanted) -> float | None:
    since = lag.behind_since(known, wanted)
    if since != known.behind_since:
        store.set_behind(connection, known, since)
    return since


def _reporting(known: Reported, wanted: Wanted | None, now: float) -> Instance:
    since = lag.behind_since(known, wanted)
    return Instance(
        environment=known.environment,
        agent=known.agent,
        instance=known.instance,
        role="reports",
        runs=known.version,
        should_run=wanted.behaviour_digest if wanted else "",
        lag=0.0 if since is None else max(0.0, now - since),
        status=lag.state(known, now),
        message=known.message,
        last_seen_at=known.last_seen_at,
    )


def _wrong(known: Reported, wanted: Wanted | None, now: float) -> dict[str, tuple[str, str, str]]:
    place = (known.environment, known.agent, known.instance)
    subject = f"{known.environment}/{known.agent} {known.instance}"
    found = {}
    if lag.state(known, now) == "missing":
        message = f"not heard of for {_span(now - known.last_seen_at)}; it reports every {_span(known.interval)}"
        found[_key(MISSING, *place)] = (MISSING, subject, message)
    since = lag.behind_since(known, wanted)
    if wanted is not None and since is not None and known.status != "stopping" and lag.lags(known, since, now):
        message = f"runs {known.version} and should run {_short(wanted.behaviour_digest)} for {_span(now - since)}"
        found[_key(LAG, *place)] = (LAG, subject, message)
    return found


def _key(kind: str, *place: str) -> str:
    return ":".join((kind, *place))


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
