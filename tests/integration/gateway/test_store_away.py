"""What goes on, and what does not, while the store is away: the sentences of docs/when-things-are-away.md."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import openai
import psycopg
import pytest
from sqlalchemy import make_url

from lockgate.gateway.worker import Worker
from lockgate.testing import FakeModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import FakeHost, RunningGateway


class Store:
    """The control database's file, taken away and put back."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self._path = gateway.app.home / "control.db"

    def leave(self) -> None:
        self._gateway.app.control.engine.dispose()
        for suffix in ("", "-wal", "-shm"):
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                file.rename(file.with_name("away-" + file.name))
        self._path.mkdir()  # so that nobody makes a new one in its place

    def back(self) -> None:
        self._path.rmdir()
        for suffix in ("-wal", "-shm", ""):
            file = self._path.with_name("away-" + self._path.name + suffix)
            if file.exists():
                file.rename(self._path.with_name(self._path.name + suffix))
        self._gateway.app.control.engine.dispose()


@pytest.fixture
def store(gateway: RunningGateway) -> Store:
    return Store(gateway)


def test_known_keys_and_runs_under_way_are_served_and_their_money_is_kept(
    gateway: RunningGateway, model: FakeModelServer, store: Store
) -> None:
    key, token = gateway.key(), gateway.run_token()
    assert gateway.ask(key)[0] == 200
    before = gateway.balances("tenant:dev:acme")[0].settled
    store.leave()
    try:
        assert gateway.ask(key)[0] == 200
        assert gateway.ask(token)[0] == 200
    finally:
        store.back()
    assert gateway.balances("tenant:dev:acme")[0].settled > before
    assert len(gateway.spans()) == 3


def test_an_unknown_key_is_told_to_come_back_and_is_served_when_the_store_is_back(
    gateway: RunningGateway, model: FakeModelServer, store: Store
) -> None:
    key = gateway.key()
    other = gateway.key(tenant="other")
    store.leave()
    try:
        status, headers, body = gateway.ask(other)
        assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")
        assert "retry-after" in {name.lower() for name in headers}
    finally:
        store.back()
    deadline = time.monotonic() + 60
    while gateway.ask(other)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert gateway.ask(key)[0] == 200


def test_agents_are_served_from_the_last_snapshot(
    gateway: RunningGateway, hosts: Callable[[str], FakeHost], store: Store
) -> None:
    key = gateway.key()
    gateway.route()
    hosts("b")
    assert gateway.ask(key, model="agent:triage")[0] == 200
    store.leave()
    try:
        assert gateway.ask(key, model="agent:triage")[0] == 200
    finally:
        store.back()


def test_a_version_that_a_worker_has_not_seen_yet_is_read_from_its_bundle(
    gateway: RunningGateway, project_folder: Path, store: Store
) -> None:
    """Its guardrails hold also then."""
    for folder in ("agents", "prompts"):
        (project_folder / folder).mkdir()
    (project_folder / "prompts" / "kind.md").write_text("Be kind.")
    (project_folder / "agents" / "kind.v1.yaml").write_text(
        "agent:\n  name: kind\n  version: 1\n  owner: x\n  model: {provider: fake, name: fake-model}\n"
        "  system_prompt: prompts/kind.md\n  guardrails: {pii_redaction: true, output: [canary]}\n"
    )
    digest = gateway.app.versions.lock(None).versions[0].digest
    gateway.app.versions._loaded.clear()
    worker = gateway.worker
    assert worker is not None
    store.leave()
    try:
        version = Worker._version(worker, digest)
    finally:
        store.back()
    assert version.guardrails.pii_redaction
    assert version.guardrails.output == ({"guard": "canary", "action": "block"},)


def test_liveness_does_not_ask_the_store(gateway: RunningGateway, store: Store) -> None:
    import urllib.request

    store.leave()
    try:
        with urllib.request.urlopen(gateway.url + "/health", timeout=60) as answer:
            assert answer.status == 200
    finally:
        store.back()


ASKED: dict[str, Callable[[openai.OpenAI, str], Any]] = {
    "a file": lambda client, _: client.files.create(file=("a", b"x"), purpose="user_data"),
    "the files": lambda client, _: client.files.list(),
    "an upload": lambda client, _: client.uploads.create(
        filename="a", bytes=1, mime_type="text/plain", purpose="user_data"
    ),
    "a batch": lambda client, file: client.batches.create(
        input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h"
    ),
    "the batches": lambda client, _: client.batches.list(),
}


@pytest.fixture
def batch_client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=gateway.url + "/v1", api_key=gateway.key(), max_retries=0, timeout=60,
        default_headers={"x-lockgate-provider": "fake"},
    ) as client:  # fmt: skip
        yield client


def batch_file(client: openai.OpenAI) -> str:
    body = {"model": "fake/fake-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch").id


def assert_told_to_come_back(refused: pytest.ExceptionInfo[openai.APIStatusError]) -> None:
    body: Any = refused.value.body
    assert (refused.value.status_code, body["code"]) == (503, "unavailable")
    assert int(refused.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("what", ASKED)
def test_files_and_batches_wait_for_the_store_and_no_provider_is_asked(
    model: FakeModelServer, store: Store, batch_client: openai.OpenAI, what: str
) -> None:
    file = batch_file(batch_client)
    asked = len(model.batches.asked)
    store.leave()
    try:
        with pytest.raises(openai.APIStatusError) as refused:
            ASKED[what](batch_client, file)
    finally:
        store.back()
    assert_told_to_come_back(refused)
    assert len(model.batches.asked) == asked


@pytest.mark.parametrize("what", ["a file", "an upload", "a batch"])
def test_while_the_store_takes_no_writes_nothing_is_made_at_a_provider_and_nothing_is_held(
    gateway: RunningGateway, model: FakeModelServer, batch_client: openai.OpenAI,
    monkeypatch: pytest.MonkeyPatch, what: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("lockgate.gateway.batches.desk._CHECK_SECONDS", 0.05)
    file = batch_file(batch_client)
    asked = len(model.batches.asked)
    with closing(sqlite3.connect(gateway.app.home / "control.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(openai.APIStatusError) as refused:
            ASKED[what](batch_client, file)
        assert gateway.app.holds.open_holds() == 0
        other.execute("ROLLBACK")
    assert_told_to_come_back(refused)
    assert len(model.batches.asked) == asked


@pytest.fixture
def postgres(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], object]]:
    """``postgres("…")`` alters the database that the gateway of this test uses, and ends its connections."""
    monkeypatch.setenv("LOCKGATE_CONTROL_URL", postgres_database)
    url = make_url(postgres_database)
    server = url.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:

        def alter(how: str) -> None:
            connection.execute(f"alter database {url.database} {how}".encode())
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [url.database]
            )

        yield alter
        alter("with allow_connections true")


def test_a_postgresql_that_is_stopped_is_a_503_for_files_and_batches(
    postgres: Callable[[str], object], gateway: RunningGateway, model: FakeModelServer, batch_client: openai.OpenAI
) -> None:
    file = batch_file(batch_client)
    asked = len(model.batches.asked)
    postgres("with allow_connections false")
    for ask in ASKED.values():
        with pytest.raises(openai.APIStatusError) as refused:
            ask(batch_client, file)
        assert_told_to_come_back(refused)
    assert len(model.batches.asked) == asked


def test_a_postgresql_that_can_only_be_read_lists_files_and_takes_none(
    postgres: Callable[[str], object], gateway: RunningGateway, model: FakeModelServer, batch_client: openai.OpenAI
) -> None:
    file = batch_file(batch_client)
    asked = len(model.batches.asked)
    postgres("set default_transaction_read_only = on")
    gateway.app.control.engine.dispose()
    assert [one.id for one in batch_client.files.list()] == [file]
    for what in ("a file", "an upload", "a batch"):
        with pytest.raises(openai.APIStatusError) as refused:
            ASKED[what](batch_client, file)
        assert_told_to_come_back(refused)
    assert len(model.batches.asked) == asked
