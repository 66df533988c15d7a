"""Triage speaks of failures in the runtime's own words."""

from __future__ import annotations

from lockgate.improve import triage
from lockgate.runtime.failures import ERROR_TYPES


def test_every_error_type_triage_knows_exists() -> None:
    assert set(ERROR_TYPES) >= triage.BUDGET_STOPS | triage.NOT_THE_AGENTS
