"""Transactions hold on both engines."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, select, text, update

from lockgate.errors import Conflict, Corrupt, InputError, Unavailable
from lockgate.storage import audit, schema
from lockgate.storage.engine import Database, open_database


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


LATER = {  # what databases of the first schema were made without
    "ledger": ["cap", "held", "refused"],
    "machines": ["keeps_traces"],
    "provider_batches": ["terms"],
    "runs": ["tools", "origin"],
}


def make_old(database: Database, without: dict[str, list[str]], revision: str = "control_0001") -> str:
    """Leave the database as an earlier Lockgate made it, and give its URL."""
    with database.write() as connection:
        for table, columns in without.items():
            for column in columns:
                connection.execute(text(f"alter table {table} drop column {column}"))
        connection.execute(text("update control_schema_version set version_num = :it"), {"it": revision})
    url = database.engine.url.set(drivername=database.dialect).render_as_string(hide_password=False)
    database.close()
    return url


def test_a_database_of_the_first_schema_keeps_its_rows_and_gets_the_columns_that_came_later(control: Database) -> None:
    key = {"account": "tenant:dev:a", "window": "", "unit": "usd", "machine": "m"}
    with control.write() as connection:
        connection.execute(insert(schema.ledger).values(**key, settled=7, created_at=1.0, updated_at=1.0))
        connection.execute(insert(schema.machines).values(name="m", joined_at=1.0, seen_at=1.0))
    opened = open_database(make_old(control, LATER), "control")
    with opened.read() as connection:
        row = connection.execute(select(schema.ledger)).one()
        assert (row.settled, row.cap, row.held, row.refused) == (7, None, 0, 0)
        assert connection.execute(select(schema.machines.c.keeps_traces)).scalar_one() is False
        assert connection.execute(select(schema.runs)).all() == []
        assert connection.execute(text("select version_num from control_schema_version")).scalar_one() == "control_0002"
    opened.close()


def test_one_of_the_first_schema_that_has_the_columns_is_not_changed(control: Database) -> None:
    opened = open_database(make_old(control, {}), "control")
    with opened.read() as connection:
        assert connection.execute(select(schema.ledger)).all() == []
    opened.close()


def test_one_that_is_older_than_any_migration_is_refused_by_what_it_is_without(control: Database) -> None:
    url = make_old(control, {**LATER, "eval_runs": ["kind"]})
    for _ in range(2):  # and it stays as it is
        with pytest.raises(Conflict, match=r"without eval_runs\.kind; no migration") as refused:
            open_database(url, "control")
    assert "LOCKGATE_CONTROL_URL" in str(refused.value.remedy)


def test_one_of_a_newer_lockgate_is_refused(control: Database) -> None:
    with pytest.raises(Conflict, match="control_9999") as refused:
        open_database(make_old(control, {}, "control_9999"), "control")
    assert "newer" in str(refused.value.remedy)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://root:hunter2@db/x", "mysql://root:***@db/x"),
        ("mysql://x", "mysql://x"),
        ("postgresql://root:hunter2@db:port/x", "postgresql://root:***@db:port/x"),
        ("mysql://db/x?password=hunter2&a=1", "mysql://db/x?password=***&a=1"),
    ],
)
def test_a_url_of_another_kind_is_refused_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(InputError) as refused:
        open_database(url, "traces")
    assert repr(shown) in refused.value.message
    assert "LOCKGATE_TRACES_URL to postgresql://" in str(refused.value.remedy)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_files_are_their_owners_alone(tmp_path: Path, form: str) -> None:
    before = os.umask(0o022)
    try:
        path = tmp_path / "state" / "control.db"
        opened = open_database(form.format(path), "control")
        with opened.write() as connection:
            audit.record(connection, at=1.0, actor="a", action="b", subject="c")
        found = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert found == {"control.db": 0o600, "control.db-wal": 0o600, "control.db-shm": 0o600}
        opened.close()
    finally:
        os.umask(before)


def test_a_place_where_no_file_can_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"control\.db' cannot be made: "):
        open_database(tmp_path / "file" / "control.db", "control")


@pytest.mark.parametrize("at", [0, 4096])
def test_traces_that_are_damaged_say_what_to_do(tmp_path: Path, at: int) -> None:
    path = tmp_path / "traces.db"
    open_database(path, "traces").close()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"damage" * 5000)

    def look() -> None:
        with open_database(path, "traces").read() as connection:
            connection.execute(select(schema.spans).order_by(schema.spans.c.start_ns)).all()

    with pytest.raises(Unavailable, match=r"traces\.db' is damaged") as refused:
        look()
    assert f"move {path} away" in str(refused.value.remedy)
