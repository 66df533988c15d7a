from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from lockgate.errors import Conflict, Unavailable
from lockgate.runtime.committer import Committer
from lockgate.storage.engine import Database
from lockgate.storage.schema import leases


@pytest.fixture
def committer(control: Database) -> Iterator[Committer]:
    committer = Committer(control)
    yield committer
    committer.close()


def adding(name: str) -> Any:
    def work(connection: Connection) -> str:
        connection.execute(insert(leases).values(name=name, holder="x", fence=1, expires_at=0.0))
        return name

    return work


def names(control: Database) -> list[str]:
    with control.read() as connection:
        return sorted(connection.execute(select(leases.c.name)).scalars())


def held(committer: Committer) -> threading.Event:
    """Keep the thread busy, so that what is submitted next shares a transaction."""
    go = threading.Event()
    committer.submit(lambda connection: go.wait(60))
    return go


def test_what_is_confirmed_can_be_read(control: Database, committer: Committer) -> None:
    assert committer.submit(adding("a")).result(60) == "a"
    assert names(control) == ["a"]


def test_many_writes_share_a_transaction_and_each_gets_its_answer(control: Database, committer: Committer) -> None:
    go = held(committer)
    futures = [committer.submit(adding(f"n{number:02}")) for number in range(20)]
    go.set()
    assert [future.result(60) for future in futures] == names(control)


def test_one_that_refuses_leaves_the_others_alone(control: Database, committer: Committer) -> None:
    def refusing(connection: Connection) -> None:
        raise Conflict("not mine")

    go = held(committer)
    futures = [committer.submit(work) for work in (adding("a"), refusing, adding("b"))]
    go.set()
    assert isinstance(futures[1].exception(60), Conflict)
    assert (futures[0].result(60), futures[2].result(60), names(control)) == ("a", "b", ["a", "b"])


def test_one_that_breaks_the_transaction_leaves_the_others_alone(control: Database, committer: Committer) -> None:
    go = held(committer)
    broken = [lambda connection: connection.execute(text("select no_such_column")), lambda connection: 1 // 0]
    futures = [committer.submit(work) for work in (adding("a"), *broken, adding("b"))]
    go.set()
    assert isinstance(futures[1].exception(60), Unavailable)
    assert isinstance(futures[2].exception(60), ZeroDivisionError)
    assert (futures[0].result(60), futures[3].result(60), names(control)) == ("a", "b", ["a", "b"])


def test_a_write_is_made_even_when_its_caller_no_longer_waits(control: Database, committer: Committer) -> None:
    go = held(committer)
    future = committer.submit(adding("a"))
    assert future.cancel() is False
    go.set()
    future.result(60)
    assert names(control) == ["a"]


def test_closing_writes_what_is_queued_and_then_refuses(control: Database) -> None:
    committer = Committer(control)
    futures = [committer.submit(adding(f"n{number}")) for number in range(5)]
    committer.close()
    assert len(names(control)) == 5
    assert all(future.done() for future in futures)
    assert isinstance(committer.submit(adding("late")).exception(60), Unavailable)
