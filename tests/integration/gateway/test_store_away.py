"""What goes on, and what does not, while the store is away: the sentences of docs/when-things-are-away.md."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from lockgate.gateway.worker import Worker
from lockgate.testing import FakeModelServer

if TYPE_CHECKING:
    from collections.abc import Callable
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
