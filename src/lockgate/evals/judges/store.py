"""The SQL of calibrations."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from lockgate.evals.judges.calibration import Calibration
from lockgate.ids import new_id
from lockgate.storage.engine import Database
from lockgate.storage.schema import calibrations


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


def last(control: Database, judge_digest: str) -> Calibration | None:
    """The newest calibration of exactly this judge."""
    query = select(calibrations.c.record).where(calibrations.c.judge_digest == judge_digest)
    with control.read() as connection:
        row = connection.execute(query.order_by(calibrations.c.created_at.desc()).limit(1)).first()
    return None if row is None else msgspec.convert(row[0], Calibration)


def listed(control: Database, limit: int = 50) -> list[Calibration]:
    """Calibrations, the newest first."""
    query = select(calibrations.c.record).order_by(calibrations.c.created_at.desc()).limit(limit)
    with control.read() as connection:
        return [msgspec.convert(row[0], Calibration) for row in connection.execute(query)]
