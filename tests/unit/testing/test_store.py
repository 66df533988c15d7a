"""A database of a test's own."""

from __future__ import annotations

from sqlalchemy import select

from lockgate.storage import audit, schema
from lockgate.testing import memory_store


def test_each_is_empty_and_has_the_whole_schema() -> None:
    with memory_store() as one, memory_store() as other:
        with one.write() as connection:
            audit.record(connection, at=1.0, actor="a", action="b", subject="c")
        with one.read() as mine, other.read() as theirs:
            assert len(mine.execute(select(schema.audit)).all()) == 1
            assert theirs.execute(select(schema.audit)).all() == []


def test_traces_have_their_own_kind() -> None:
    with memory_store("traces") as traces, traces.read() as connection:
        assert connection.execute(select(schema.spans)).all() == []
