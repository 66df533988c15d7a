"""Transactions hold on both engines."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, inspect, select, update

from lockgate.errors import Corrupt
from lockgate.storage import audit, schema
from lockgate.storage.engine import Database


def test_a_block_that_raises_leaves_nothing_behind(control: Database) -> None:
    def fail_half_way() -> None:
        with control.write() as connection:
            audit.record(connection, at=1.0, actor="a", action="b", subject="c")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    with control.read() as connection:
        assert connection.execute(select(schema.audit)).all() == []


def test_all_that_a_transaction_reads_is_of_one_moment(control: Database) -> None:
    with control.read() as connection:
        assert connection.execute(select(schema.audit)).all() == []
        with control.write() as other:
            audit.record(other, at=1.0, actor="a", action="b", subject="c")
        assert connection.execute(select(schema.audit)).all() == []
    with control.read() as connection:
        assert len(connection.execute(select(schema.audit)).all()) == 1


def test_the_migrations_make_the_schema(control: Database, traces: Database) -> None:
    for database, metadata in ((control, schema.control), (traces, schema.traces)):
        made = inspect(database.engine)
        for table in metadata.sorted_tables:
            assert {column["name"] for column in made.get_columns(table.name)} == set(table.columns.keys())


def test_the_audit_chain_verifies_and_shows_a_change(control: Database) -> None:
    with control.write() as connection:
        for number in range(3):
            audit.record(connection, at=float(number), actor="a", action="deploy", subject=f"s{number}")
    with control.read() as connection:
        assert audit.verify(connection) == 3
    with control.write() as connection:
        connection.execute(update(schema.audit).where(schema.audit.c.seq == 2).values(subject="forged"))
    with control.read() as connection, pytest.raises(Corrupt, match="entry 2"):
        audit.verify(connection)


def test_json_columns_keep_what_they_are_given(control: Database) -> None:
    value = {"text": "é", "list": [1, 2.5, None], "nested": {"a": True}}
    row = {"id": "r", "agent": "a", "behaviour_digest": "b", "effective_digest": "e"}
    row |= {"dataset_digest": "d", "rubric_digest": "r"}
    with control.write() as connection:
        connection.execute(insert(schema.eval_runs).values(**row, scorecard=value, started_at=1.0))
    with control.read() as connection:
        assert connection.execute(select(schema.eval_runs.c.scorecard)).scalar_one() == value
