"""What GitOps comes to, for Prometheus."""

from __future__ import annotations

import logging
from typing import get_args

from sqlalchemy.exc import SQLAlchemyError

from lockgate.rollouts.converge import Status
from lockgate.rollouts.gitops import GitOps
from lockgate.telemetry.metrics import Registry

log = logging.getLogger(__name__)


class GitOpsMetrics:
    """Keeps the metrics of one branch that is followed."""

    def __init__(self, registry: Registry, gitops: GitOps) -> None:
        self._gitops = gitops
        self._status = registry.gauge(
            "lockgate_gitops_agent_status",
            "1 for the status an agent has (Synced, OutOfSync, Progressing, Degraded), 0 for the others.",
            ("environment", "agent", "status"),
        )
        self._looked_at = registry.gauge(
            "lockgate_gitops_last_look_timestamp_seconds", "When the branch was last looked at, Unix seconds."
        )
        self._reconciled_at = registry.gauge(
            "lockgate_gitops_last_reconcile_timestamp_seconds",
            "When what serves was last brought to what the branch says, Unix seconds.",
        )
        self._broken = registry.gauge(
            "lockgate_gitops_commit_broken", "1 while the branch's newest commit cannot be read and is not in force."
        )
        self._errors = registry.counter(
            "lockgate_gitops_errors_total",
            "Failures by kind: commit (the newest one cannot be read), reconcile (an agent is not brought there).",
            ("kind",),
        )
        self._counted = {"commit": 0, "reconcile": 0}

    def refresh(self) -> None:
        """Bring them up to date. Agents that the branch no longer names are gone."""
        try:
            source, states = self._gitops.source(), self._gitops.states()
        except SQLAlchemyError as away:
            log.warning("the metrics of GitOps stay as they are: %s", away)
            return
        self._status.replace(
            {
                (state.environment, state.agent, status): float(state.status == status)
                for state in states
                for status in get_args(Status)
            }
        )
        self._looked_at.set(source.checked_at)
        self._reconciled_at.set(self._gitops.reconciled_at)
        self._broken.set(float(bool(source.error)))
        for kind, count in self._gitops.failures.items():
            self._errors.add(count - self._counted[kind], kind)
            self._counted[kind] = count
