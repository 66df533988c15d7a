"""The guardrails' figures for Prometheus."""

from __future__ import annotations

from lockgate.gateway.guardrails.model import Outcome
from lockgate.telemetry.metrics import MOST_SERIES, Counts, Observations, Registry

_BUCKETS = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class GuardMetrics:
    """Kept by a gateway worker."""

    def __init__(self, registry: Registry) -> None:
        self._known: dict[tuple[str, str, str, str, str], tuple[Counts, Observations]] = {}
        self._checks = registry.counter(
            "lockgate_guardrail_checks_total",
            "Calls that a guardrail looked at, by what it did.",
            ("environment", "agent", "guard", "side", "action"),
        )
        self._findings = registry.counter(
            "lockgate_guardrail_findings_total",
            "What guardrails found, by kind.",
            ("environment", "agent", "guard", "side", "kind"),
        )
        self._seconds = registry.histogram(
            "lockgate_guardrail_seconds", "Time that a guardrail took on a call.", ("guard", "side"), _BUCKETS
        )

    def note(self, environment: str, agent: str, outcome: Outcome) -> None:
        labels = environment, agent, outcome.guard, outcome.side, outcome.action
        checks, seconds = self._known.get(labels) or self._new(*labels)
        checks.add()
        seconds.observe(outcome.nanos / 1e9)
        for kind, number in outcome.findings.items():
            self._findings.add(number, environment, agent, outcome.guard, outcome.side, kind)

    def _new(self, environment: str, agent: str, guard: str, side: str, action: str) -> tuple[Counts, Observations]:
        if len(self._known) >= MOST_SERIES:
            self._known.clear()
        labels = environment, agent, guard, side, action
        found = self._known[labels] = self._checks.series(*labels), self._seconds.series(guard, side)
        return found
