"""The SQL of calibrations."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from lockgate.evals.judges.calibration import Calibration
from lockgate.ids import new_id
from lockgate.storage.engine import Database
from lockgate.storage.schema import calibrations

KNOWN = 100
"""Calibrations of one judge that are looked through for an agent's own."""


def save(control: Database, found: Calibration) -> str:
    """Keep a calibration; returns its id."""
    row_id = new_id("calibration")
    with control.write() as connection:
        connection.execute(
            calibrations.insert().values(
                id=row_id,
                judge_digest=found.digest,
                metric=found.metric,
                record=msgspec.to_builtins(found),
                created_at=found.created_at,
            )
        )
    return row_id


def last(control: Database, judge_digest: str, agent: str = "") -> Calibration | None:
    """The newest calibration of exactly this judge: on this agent's answers, else on any."""
    query = select(calibrations.c.record).where(calibrations.c.judge_digest == judge_digest)
    with control.read() as connection:
        rows = connection.execute(query.order_by(calibrations.c.created_at.desc()).limit(KNOWN)).all()
    found = [msgspec.convert(row[0], Calibration) for row in rows]
    return next((one for one in found if one.agent == agent), found[0] if found else None)


def listed(control: Database, limit: int = 50) -> list[Calibration]:
    """Calibrations, the newest first."""
    query = select(calibrations.c.record).order_by(calibrations.c.created_at.desc()).limit(limit)
    with control.read() as connection:
        return [msgspec.convert(row[0], Calibration) for row in connection.execute(query)]
