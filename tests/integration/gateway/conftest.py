"""A gateway worker's parts on a real server and a real store, in this process, on a port of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from aiohttp import web
from sqlalchemy import insert, select

from lockgate.bootstrap import App
from lockgate.gateway.model import RunClaims
from lockgate.gateway.serve import Server, listen
from lockgate.gateway.tokens import sign
from lockgate.gateway.worker import Worker
from lockgate.limits.model import Balance
from lockgate.project.guards import TenantSpec
from lockgate.project.service import load_project
from lockgate.results import RunResult
from lockgate.runs import RunRequest, host_socket
from lockgate.storage.schema import routes, spans
from lockgate.testing import FakeModelServer
from lockgate.versions.model import ActionLimits, AgentVersion, ModelRef

PRICES = """
fake: {fake-model: {input: 1.0, output: 2.0}, gpt-5-fake: {input: 1.0, output: 2.0}}
brief: {fake-model: {input: 1.0, output: 2.0}}
down: {fake-model: {input: 1.0, output: 2.0}}
claude: {fake-model: {input: 1.0, output: 2.0, cached: 0.1}}
azure: {fake-model: {input: 1.0, output: 2.0}}
"""


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a worker runs on."""
    return {"uvloop": uvloop.new_event_loop}


class RunningGateway:
    """A worker's application served from a thread."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.listener = listen("127.0.0.1", 0)
        self.listener_port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.listener_port}"
        self.worker: Worker | None = None
        self.version = AgentVersion(
            agent="triage",
            file_version=1,
            behaviour_digest="",
            model=ModelRef(provider="fake", name="fake-model"),
            system_prompt="",
        )
        """What every run's version is taken for; cached by digest, so set it before a digest's first call."""
        self.limits = ActionLimits(max_seconds=60.0)
        """Every run's; the versions here are not locked."""
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)  # the first one of a process imports a gateway

    async def _main(self) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        self.worker = worker = Worker(self.app, 0)
        worker._agents._limits_of = lambda _: self.limits
        worker._version = lambda _: self.version  # type: ignore[method-assign]
        worker._proxy._guards._version_of = lambda _: self.version
        worker._proxy._cache._version_of = lambda _: self.version
        worker._proxy._router._version_of = lambda _: self.version
        self._server = Server(worker.start(), self.listener.detach())
        self._ready.set()
        await stopping.wait()
        await self._server.drain(1.0)
        await worker.close()

    def stop(self) -> None:
        """Once is enough; again does nothing."""
        if self._thread.is_alive():
            self._stop()
            self._thread.join(60)

    def key(self, **options: Any) -> str:
        return self.app.keys.create(**{"tenant": "acme", "environment": "dev", **options})[0]

    def refresh(self) -> None:
        assert self.worker is not None
        self.worker._directory.refresh()

    def run_token(self, digest: str = "a") -> str:
        """A token of a run of the agent ``triage``, whose version has this letter for a digest."""
        claims = RunClaims(
            run_id="run_1",
            agent="triage",
            environment="dev",
            tenant="acme",
            behaviour_digest="sha256:" + digest * 64,
            effective_digest="sha256:" + digest * 64,
            arm="stable",
            trace_id="1" * 32,
            depth=0,
            expires_at=self.app.clock() + 3600,
            max_usd_nano=None,
            max_llm_calls=100,
            max_tokens=1_000_000,
        )
        return sign(claims, self.app.secret)

    def ask(
        self, key: str, text: Any = "hi", *, path: str = "/v1/chat/completions", headers: Any = None, **more: Any
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one bare request; ``text`` may be a list of messages."""
        messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
        body = json.dumps({"model": "fake/fake-model", "messages": messages, **more}).encode()
        sent = {"content-type": "application/json", "authorization": f"Bearer {key}", **(headers or {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, sent), timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def tenants(self, **specs: TenantSpec) -> None:
        """What the project file says of tenants, from now on."""
        self.app.project.config = self.app.project.config.model_copy(update={"tenants": specs})

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

    def rest(self) -> None:
        """Wait for the end of every call: its span, its money and its figures come after its answer."""
        assert self.worker is not None
        assert self.worker._batches is not None
        deadline = time.monotonic() + 60
        while self._server.under_way or self.worker._batches._tasks:
            assert time.monotonic() < deadline, "a call does not end"
            time.sleep(0.005)

    def spans(self) -> list[Any]:
        """All that the calls so far recorded."""
        self.rest()
        assert self.app.spans.flush(30)
        with self.app.traces.read() as connection:
            return list(connection.execute(select(spans).order_by(spans.c.start_ns)))

    def balances(self, prefix: str = "") -> list[Balance]:
        """The accounts that begin with ``prefix``, when the calls so far are paid."""
        self.rest()
        return self.app.holds.balances(prefix)

    def metrics(self) -> str:
        """What ``/metrics`` says of the calls so far."""
        self.rest()
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as answer:
            return str(answer.read().decode())


class FakeHost:
    """A version's host on its Unix socket: answers with what ``respond`` makes of a RunRequest.

    That is a RunResult; a number is an answer of that status; ``hang`` never answers; ``die`` closes the connection.
    """

    def __init__(self, home: Path, effective_digest: str) -> None:
        self.requests: list[RunRequest] = []
        self.cancelled = 0
        self.respond: Callable[[RunRequest], Any] = lambda _: RunResult(status="completed", output="done")
        self._path = host_socket(home, effective_digest)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/runs", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._loop.run_until_complete(web.UnixSite(runner, str(self._path)).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read(), type=RunRequest)
        self.requests.append(asked)
        answer = self.respond(asked)
        if answer == "hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if answer == "die":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, int):
            return web.Response(status=answer, text="no")
        result = msgspec.structs.replace(answer, run_id=asked.run_id)
        return web.Response(body=msgspec.json.encode(result), content_type="application/json")


@pytest.fixture
def hosts(gateway: RunningGateway) -> Iterator[Callable[[str], FakeHost]]:
    """``hosts("b")`` serves the version whose effective digest is ``bbb…``."""
    running: list[FakeHost] = []

    def serve(letter: str) -> FakeHost:
        running.append(FakeHost(gateway.app.home, "sha256:" + letter * 64))
        return running[-1]

    yield serve
    for host in running:
        host.stop()


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
        f"  fake: {{kind: openai, base_url: '{model.base_url}', timeout: 60}}\n"
        f"  brief: {{kind: openai, base_url: '{model.base_url}', timeout: 3}}\n"
        f"  down: {{kind: openai, base_url: 'http://127.0.0.1:1/v1', timeout: 5, retries: 1}}\n"
        f"  claude: {{kind: anthropic, base_url: '{model.base_url}', timeout: 60}}\n"
        f"  azure: {{kind: azure, base_url: '{model.base_url}', api_version: '2024-10-21', timeout: 60}}\n"
    )
    return root


@pytest.fixture
def gateway(project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningGateway]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    running = RunningGateway(App(load_project(project_folder)))
    yield running
    running.stop()
