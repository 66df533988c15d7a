"""Alerts: what somebody should look at now."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["critical", "warning", "info"]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. ``key`` names the thing: while an alert is open, no second one has its key.

    ``kind`` is a short word (``budget``, ``rollback``…), ``subject`` whom it is about; times are Unix seconds.
    """

    id: str
    key: str
    kind: str
    severity: Severity
    subject: str
    message: str
    opened_at: float
    last_seen_at: float
    resolved_at: float | None = None
