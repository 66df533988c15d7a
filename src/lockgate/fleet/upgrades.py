"""The implicit upgrade: a provider that serves something else under a name and a digest that have not changed.

Every run records what its provider says answered. The first revision seen under an effective digest is taken for the
one that was gated; each further one raises an alert, once. Closing the alert accepts the revision; so does moving to
a version that was locked anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from lockgate.clock import Clock
from lockgate.fleet.service import Alerts
from lockgate.storage.engine import Database
from lockgate.storage.schema import routes, runs, served_revisions

KIND = "upgrade"
HORIZON = 86_400.0
"""Seconds of runs that a first look takes in."""
_OVERLAP = 10.0  # seconds looked at again, for what was committed late
_OLLAMA = "fp_ollama"  # Ollama states no revision in its answers, but has digests to ask for


class Key(NamedTuple):
    """One model under one version in one environment."""

    environment: str
    effective_digest: str
    model: str

    @property
    def alert(self) -> str:
        return f"{KIND}:{self.environment}:{self.effective_digest.removeprefix('sha256:')[:12]}:{self.model}"


class _Seen(NamedTuple):
    agent: str
    behaviour_digest: str
    revisions: dict[str, None]  # in the order they were seen


class Upgrades:
    """Notices implicit upgrades. ``locked(behaviour, model)`` is the revision that was locked, if any;
    ``digest(environment, effective digest, model)`` asks the version's server of tags what a name stands for now."""

    def __init__(
        self,
        control: Database,
        clock: Clock,
        alerts: Alerts,
        *,
        locked: Callable[[str, str], str | None],
        digest: Callable[[str, str, str], str | None],
    ) -> None:
        self._control = control
        self._clock = clock
        self._alerts = alerts
        self._locked = locked
        self._digest = digest
        self._seen_until: float | None = None

    def tick(self) -> int:
        """Look at the runs that ended since the last time; returns how many revisions are new and unexpected."""
        now = self._clock()
        since = now - HORIZON if self._seen_until is None else self._seen_until - _OVERLAP
        with self._control.read() as connection:
            seen = _served(connection, since)
            known = _known(connection)
            served = {row[0] for pair in connection.execute(_ROUTED) for row in ((pair[0],), (pair[1],)) if row[0]}
        self._settle(known, served)
        told = 0
        for key, one in seen.items():
            for revision in one.revisions:
                stated = self._stated(key, revision)
                if stated not in known.get(key, {}):
                    told += self._note(key, one, stated, known.setdefault(key, {}), now)
        self._seen_until = now
        return told

    def _stated(self, key: Key, revision: str) -> str:
        if not revision.endswith(_OLLAMA):
            return revision
        digest = self._digest(key.environment, key.effective_digest, key.model)
        return revision if digest is None else f"{revision.removesuffix(_OLLAMA).rstrip()} {digest[:19]}"

    def _note(self, key: Key, one: _Seen, revision: str, known: dict[str, bool], now: float) -> int:
        locked = self._locked(one.behaviour_digest, key.model) if not known else None
        digest = revision.rpartition(" ")[2]
        other = locked is not None and digest.startswith("sha256:") and not locked.startswith(digest)
        expected = not known and not other
        before = locked[:19] if locked is not None and other else ", ".join(known)
        known[revision] = expected
        with self._control.write() as connection:
            connection.execute(
                insert(served_revisions).values(
                    environment=key.environment,
                    effective_digest=key.effective_digest,
                    model=key.model,
                    revision=revision,
                    accepted=expected,
                    first_seen_at=now,
                )
            )
        if expected:
            return 0
        changed_name = other or revision.split(" ")[0] not in {text.split(" ")[0] for text in known if text != revision}
        self._alerts.raise_alert(
            key.alert,
            KIND,
            "critical" if changed_name or digest.startswith("sha256:") else "warning",
            f"{key.environment}/{one.agent}",
            f"{key.model} answers as {revision!r} now, and was {before!r}, under the same digest "
            f"{key.effective_digest[:19]}: evaluate it anew; closing this alert accepts it",
        )
        return 1

    def _settle(self, known: dict[Key, dict[str, bool]], served: set[str]) -> None:
        """Accept what a person closed, and what serves no more."""
        waiting = [key for key, revisions in known.items() if not all(revisions.values())]
        if not waiting:
            return
        open_keys = {alert.key for alert in self._alerts.list(limit=10_000) if alert.kind == KIND}
        for key in waiting:
            gone = key.effective_digest not in served
            if key.alert in open_keys and not gone:
                continue
            if gone:
                self._alerts.resolve(key.alert)
            with self._control.write() as connection:
                connection.execute(
                    update(served_revisions)
                    .where(
                        served_revisions.c.environment == key.environment,
                        served_revisions.c.effective_digest == key.effective_digest,
                        served_revisions.c.model == key.model,
                    )
                    .values(accepted=True)
                )


_ROUTED = select(routes.c.stable_effective, routes.c.candidate_effective)


def _served(connection: Connection, since: float) -> dict[Key, _Seen]:
    columns = (runs.c.environment, runs.c.effective_digest, runs.c.agent, runs.c.behaviour_digest, runs.c.served)
    query = select(*columns).where(runs.c.ended_at > since).order_by(runs.c.ended_at)
    found: dict[Key, _Seen] = {}
    for row in connection.execute(query):
        for model, revision in (row.served or {}).items():
            key = Key(row.environment, row.effective_digest, model)
            found.setdefault(key, _Seen(row.agent, row.behaviour_digest, {})).revisions[revision] = None
    return found


def _known(connection: Connection) -> dict[Key, dict[str, bool]]:
    found: dict[Key, dict[str, bool]] = {}
    for row in connection.execute(select(served_revisions).order_by(served_revisions.c.first_seen_at)):
        found.setdefault(Key(row.environment, row.effective_digest, row.model), {})[row.revision] = row.accepted
    return found
