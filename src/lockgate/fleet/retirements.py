"""Models that serve, and are soon taken away by their publishers: an alert before the day."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import NamedTuple

from lockgate.fleet.model import Severity
from lockgate.fleet.service import Alerts
from lockgate.versions.deprecations import Deprecation

KIND = "retirement"
DAYS = 30
URGENT_DAYS = 7
"""So near the day, the alert is critical."""


class Ending(NamedTuple):
    """One model of a served version, and its announced end."""

    environment: str
    agent: str
    model: str  # provider/name
    end: Deprecation

    @property
    def key(self) -> str:
        return f"{KIND}:{self.environment}:{self.agent}:{self.model}"


class Retirements:
    """Keeps one alert open for each served model that goes within so many days.

    ``endings`` gives every served model with an announced end, ``days`` how long before the day an alert is wanted.
    """

    def __init__(
        self,
        alerts: Alerts,
        *,
        endings: Callable[[], Iterable[Ending]],
        today: Callable[[], date],
        days: Callable[[str, str], int],
    ) -> None:
        self._alerts = alerts
        self._endings = endings
        self._today = today
        self._days = days

    def tick(self) -> int:
        """Raise what is near, resolve what is not any more; returns how many alerts stand."""
        today = self._today()
        near = {
            one.key: one
            for one in self._endings()
            if one.end.days_left(today) <= self._days(one.environment, one.agent)
        }
        known = {alert.key: alert for alert in self._alerts.list(limit=10_000) if alert.kind == KIND}
        for key, one in near.items():
            severity: Severity = "critical" if one.end.days_left(today) <= URGENT_DAYS else "warning"
            message = f"{one.end.message(today)}; {one.end.remedy()}"
            before = known.get(key)
            if before is None or (before.severity, before.message) != (severity, message):
                self._alerts.raise_alert(key, KIND, severity, f"{one.agent} in {one.environment}", message)
        for key in set(known) - set(near):
            self._alerts.resolve(key)
        return len(near)
