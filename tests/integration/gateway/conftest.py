"""A gateway worker's parts on a real server and a real store, in this process, on a port of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from lockgate.bootstrap import App
from lockgate.gateway.serve import Server, listen
from lockgate.gateway.worker import Worker
from lockgate.project.service import load_project
from lockgate.storage.schema import routes, spans
from lockgate.testing import FakeModelServer

PRICES = "fake:\n  fake-model: {input: 1.0, output: 2.0}\n  gpt-5-fake: {input: 1.0, output: 2.0}\n"


class RunningGateway:
    """A worker's application served from a thread."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.worker: Worker | None = None
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _main(self) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        self.worker = worker = Worker(self.app, 0)
        server = Server(worker.start(), self.listener.detach())
        self._ready.set()
        await stopping.wait()
        await server.drain(1.0)
        await worker.close()

    def stop(self) -> None:
        self._stop()
        self._thread.join(10)

    def key(self, **options: Any) -> str:
        return self.app.keys.create(**{"tenant": "acme", "environment": "dev", **options})[0]

    def refresh(self) -> None:
        assert self.worker is not None
        self.worker._directory.refresh()

    def route(self, **columns: Any) -> None:
        row = {
            "environment": "dev",
            "agent": "triage",
            "stable_behaviour": "sha256:" + "a" * 64,
            "stable_effective": "sha256:" + "b" * 64,
            "weight": 0.0,
            "mirror": 0.0,
            "settings": {},
            "revision": 1,
            **columns,
        }
        with self.app.control.write() as connection:
            connection.execute(insert(routes).values(**row))
        self.refresh()

    def spans(self) -> list[Any]:
        assert self.app.spans.flush()
        with self.app.traces.read() as connection:
            return list(connection.execute(select(spans).order_by(spans.c.start_ns)))


@pytest.fixture
def model() -> Iterator[FakeModelServer]:
    with FakeModelServer("hello") as server:
        yield server


@pytest.fixture
def project_folder(tmp_path: Path, model: FakeModelServer) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "prices.yaml").write_text(PRICES)
    (root / "lockgate.yaml").write_text(
        f"project: test\nprices: prices.yaml\nproviders:\n"
        f"  fake: {{kind: openai, base_url: '{model.base_url}', timeout: 5}}\n"
        f"  down: {{kind: openai, base_url: 'http://127.0.0.1:1/v1', timeout: 5}}\n"
    )
    return root


@pytest.fixture
def gateway(project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningGateway]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    running = RunningGateway(App(load_project(project_folder)))
    yield running
    running.stop()
