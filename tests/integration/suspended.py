"""A run that waits for a person's decision, as the runtime hands it on."""

from __future__ import annotations

from typing import Any

from lockgate.runtime.service import Resumable
from lockgate.versions.model import VersionRef


def suspended_run(ref: VersionRef, **changed: Any) -> Resumable:
    """Run ``run_1`` of that version of the agent ``triage`` in dev, first attempt, on the stable arm."""
    fields: dict[str, Any] = {
        "run_id": "run_1",
        "agent": "triage",
        "environment": "dev",
        "tenant": "acme",
        "behaviour_digest": ref.behaviour_digest,
        "effective_digest": ref.effective_digest,
        "arm": "stable",
        "trace_id": "0" * 32,
        "depth": 0,
        "attempt": 1,
    }
    return Resumable(**(fields | changed))
