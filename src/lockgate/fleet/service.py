"""Raises and resolves alerts."""

from __future__ import annotations

from collections.abc import Callable, Collection

from lockgate.clock import Clock
from lockgate.errors import NotFound
from lockgate.fleet import store
from lockgate.fleet.model import Alert, Severity
from lockgate.ids import new_id
from lockgate.storage.engine import Database


class Alerts:
    """The alerts of one control database. Safe from any number of processes."""

    def __init__(self, control: Database, clock: Clock, *, muted: Callable[[], Collection[str]] = lambda: ()) -> None:
        """``muted`` gives the kinds that are not raised now."""
        self._control = control
        self._clock = clock
        self._muted = muted

    def raise_alert(self, key: str, kind: str, severity: Severity, subject: str, message: str) -> Alert:
        """Open an alert. While one of this ``key`` is open, that one gets the new severity and message instead.

        One of a muted kind is not kept.
        """
        now = self._clock()
        alert = Alert(
            id=new_id("alert"),
            key=key,
            kind=kind,
            severity=severity,
            subject=subject,
            message=message,
            opened_at=now,
            last_seen_at=now,
        )
        if kind in self._muted():
            return alert
        with self._control.write() as connection:
            return store.open_or_refresh(connection, alert)

    def resolve(self, key: str) -> bool:
        """What the key names is well again; False when no alert was open."""
        with self._control.write() as connection:
            return bool(store.resolve(connection, "key", key, self._clock()))

    def resolve_by_id(self, alert_id: str) -> Alert:
        """Close one alert by hand; it opens anew when it is raised again. Raises :class:`NotFound`."""
        with self._control.write() as connection:
            closed = store.resolve(connection, "id", alert_id, self._clock())
        if not closed:
            raise NotFound(f"no open alert {alert_id!r}", remedy="lockgate alerts list")
        return closed[0]

    def list(self, *, resolved: bool = False, limit: int = 100) -> list[Alert]:
        """Open alerts, the severest first; with ``resolved`` also those that are over."""
        with self._control.read() as connection:
            return store.listed(connection, resolved=resolved, limit=limit)
