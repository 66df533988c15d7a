"""Hosts over their sockets: in this process, and in processes that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from lockgate import clock as clocks
from lockgate.errors import Conflict, Unavailable
from lockgate.results import RunResult
from lockgate.runs import RunRequest, host_socket
from lockgate.runtime import service as runs
from lockgate.runtime.host import Host
from lockgate.storage.engine import Database, open_database
from lockgate.testing import FakeClock, FakeModel, FakeModelServer, hanging
from lockgate.tools.service import Approvals
from lockgate.versions.model import AgentVersion

Ask = Callable[..., RunRequest]
EFFECTIVE = "sha256:" + "e" * 64
SCRIPT = Path(__file__).with_name("host_process.py")


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        "http://host", connector=aiohttp.UnixConnector(str(socket)), timeout=aiohttp.ClientTimeout(total=120)
    ) as session:
        yield session


async def post_run(session: aiohttp.ClientSession, request: RunRequest) -> RunResult:
    async with session.post("/runs", data=msgspec.json.encode(request)) as response:
        body = await response.read()
        assert response.status == 200, body
        return msgspec.json.decode(body, type=RunResult)


async def until(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := check()):  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)
        return found


# --- in this process ------------------------------------------------------------------------------------------


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Database]:
    """SQLite only: what differs between databases is tested with the service."""
    database = open_database(tmp_path / "control.db", "control")
    yield database
    database.close()


@pytest.fixture
async def serve(open_service: Any, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a host; gives it and its socket."""
    started: list[Host] = []

    async def serve(model: Any = None, *, drain: float = 60.0, most_runs: int = 10, **fields: Any) -> Host:
        host = Host(open_service(model, **fields), host_socket(tmp_path, EFFECTIVE), drain=drain, most_runs=most_runs)
        await host.start()
        started.append(host)
        return host

    yield serve
    for host in started:
        await host.stop()


async def test_a_run_over_the_socket(serve: Any, ask: Ask, control: Database) -> None:
    host = await serve(approval=False)
    async with connected(host.socket) as session:
        result = await post_run(session, ask())
        assert result.output == {"refunded": "kettle", "refund": "r-1"}
        async with session.get("/health") as response:
            health = await response.json()
    assert (health["status"], health["effective_digest"], health["pid"]) == ("ok", EFFECTIVE, os.getpid())


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/runs", b"not json", 400),
        ("/runs", b"{}", 400),
        ("/resume", b"[]", 400),
        ("/resume", b'{"run_id": "r"}', 400),
        ("/resume", b'{"run_id": "run_unknown", "token": "t"}', 404),
        ("/nowhere", b"", 404),
    ],
)
async def test_a_malformed_request_is_refused(serve: Any, path: str, body: bytes, status: int) -> None:
    host = await serve()
    async with connected(host.socket) as session, session.post(path, data=body) as response:
        assert response.status == status


async def test_a_caller_that_goes_away_cancels_the_run(serve: Any, ask: Ask, control: Database) -> None:
    host, request = await serve(FakeModel(lambda request: hanging())), ask()
    async with connected(host.socket) as session:
        asking = asyncio.create_task(post_run(session, request))
        await until(lambda: runs.list_runs(control, status="running"))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    row = await until(lambda: next(iter(runs.list_runs(control, status="cancelled")), None))
    assert (row["id"], row["error_type"]) == (request.run_id, "cancelled")


async def test_a_full_host_says_so_before_it_takes_the_run(serve: Any, ask: Ask, control: Database) -> None:
    host = await serve(FakeModel(lambda request: hanging()), most_runs=1, drain=0.1)
    async with connected(host.socket) as session:
        asking = asyncio.create_task(post_run(session, ask()))
        await until(lambda: runs.list_runs(control, status="running"))
        async with session.post("/runs", data=msgspec.json.encode(ask())) as response:
            assert response.status == 503
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(runs.list_runs(control)) == 1


async def test_a_stopped_host_ends_its_runs_and_deregisters(serve: Any, ask: Ask, control: Database) -> None:
    go = asyncio.Event()

    class Held(FakeModel):
        async def complete(self, *arguments: Any, **rest: Any) -> Any:
            await go.wait()
            return await super().complete(*arguments, **rest)

    host = await serve(Held(lambda request: {"order_id": "A-1"}), approval=False, drain=60.0)
    async with connected(host.socket) as session:
        asking = asyncio.create_task(post_run(session, ask()))
        await until(lambda: runs.list_runs(control, status="running"))
        assert _hosts(control) == 1
        stopping = asyncio.create_task(host.stop())
        await until(lambda: host._draining)
        go.set()
        await stopping
        assert (await asking).status == "completed"
    assert _hosts(control) == 0
    assert not host.socket.exists()


async def test_two_hosts_do_not_share_a_socket(serve: Any, tmp_path: Path) -> None:
    host = await serve()
    with pytest.raises(Conflict, match="already"):
        await serve(host="host_2")
    async with connected(host.socket) as session, session.get("/health") as response:
        assert response.status == 200


async def test_a_long_home_moves_the_socket_to_a_folder_of_its_own(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    assert len(os.fsencode(host_socket(deep, EFFECTIVE))) < 104
    assert host_socket(deep, EFFECTIVE) != host_socket(tmp_path / ("y" * 120), EFFECTIVE)


async def test_resuming_asks_the_host_of_the_version(
    serve: Any, ask: Ask, control: Database, tmp_path: Path, clock: FakeClock
) -> None:
    request = ask()
    host = await serve()
    async with connected(host.socket) as session:
        suspended = await post_run(session, request)
    Approvals(control, clock).approve(suspended.approval_id or "", "ann")
    [waiting] = runs.resumable(control)
    await runs.resume_on_host(tmp_path, waiting, "token-2")
    await until(lambda: runs.list_runs(control, status="completed"))
    with pytest.raises(Conflict):
        await runs.resume_on_host(tmp_path, waiting, "token-2")


async def test_resuming_without_a_host_may_be_tried_again(ask: Ask, control: Database, tmp_path: Path) -> None:
    from lockgate.runtime.service import Resumable

    names = ("run_id", "agent", "environment", "tenant", "behaviour_digest", "trace_id")
    run = Resumable(**dict.fromkeys(names, "x"), effective_digest=EFFECTIVE, arm="stable", depth=0, attempt=1)
    with pytest.raises(Unavailable, match="no host answers"):
        await runs.resume_on_host(tmp_path, run, "t")


def _hosts(control: Database) -> int:
    from sqlalchemy import func, select

    from lockgate.storage.schema import hosts

    with control.read() as connection:
        return connection.execute(select(func.count()).select_from(hosts)).scalar_one()


# --- in processes that are killed -----------------------------------------------------------------------------


class Hosts:
    """Host processes on one database; all are dead at the end."""

    def __init__(self, folder: Path, code: Path, gateway: str, version: AgentVersion) -> None:
        self.home = folder
        self._setup = {
            "version": msgspec.to_builtins(version),
            "effective": EFFECTIVE,
            "home": str(folder),
            "control": str(folder / "control.db"),
            "code": str(code),
            "gateway": gateway,
            "parent": os.getpid(),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: ASYNC220 - it outlives this function
            [sys.executable, str(SCRIPT), msgspec.json.encode(self._setup).decode()],
            env={**os.environ, **environment},
        )
        self._processes.append(process)
        socket = host_socket(self.home, EFFECTIVE)

        def ready() -> bool:
            assert process.poll() is None, "the host ended"
            return socket.exists()

        await until(ready)
        return process

    async def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        await asyncio.to_thread(process.wait)
        host_socket(self.home, EFFECTIVE).unlink(missing_ok=True)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def model_server() -> Iterator[FakeModelServer]:
    with FakeModelServer(lambda request: {"order_id": "A-1"}) as server:
        yield server


@pytest.fixture
def hosts(tmp_path: Path, shop: Any, version: Any, model_server: FakeModelServer) -> Iterator[Hosts]:
    root = model_server.base_url.removesuffix("/v1")
    hosts = Hosts(tmp_path, shop.folder, root, version())
    yield hosts
    hosts.close()


async def _suspended_and_approved(hosts: Hosts, control: Database, request: RunRequest) -> runs.Resumable:
    async with connected(host_socket(hosts.home, EFFECTIVE)) as session:
        suspended = await post_run(session, request)
    assert suspended.status == "suspended"
    Approvals(control, clocks.system).approve(suspended.approval_id or "", "ann")
    [waiting] = runs.resumable(control)
    return waiting


async def test_a_host_killed_in_the_middle_of_a_run_leaves_a_record_of_it(
    hosts: Hosts, control: Database, ask: Ask, model_server: FakeModelServer
) -> None:
    model_server.respond = lambda request: hanging()
    process, request = await hosts.start(), ask()
    async with connected(host_socket(hosts.home, EFFECTIVE)) as session:
        asking = asyncio.create_task(post_run(session, request))
        await until(lambda: runs.list_runs(control, status="running"))
        await hosts.kill(process)
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert runs.reap(control, _later) == [request.run_id]
    assert runs.read_run(control, request.run_id)["error_type"] == "host_lost"


async def test_a_host_killed_in_the_middle_of_an_approved_write_never_repeats_it(
    hosts: Hosts, control: Database, ask: Ask, shop: Any
) -> None:
    process, request = await hosts.start(REFUND_SECONDS="30"), ask()
    waiting = await _suspended_and_approved(hosts, control, request)
    await runs.resume_on_host(hosts.home, waiting, "token-2")
    await shop.until("refund A-1 40")
    await hosts.kill(process)

    assert runs.reap(control, _later) == [request.run_id]
    row = runs.read_run(control, request.run_id)
    assert (row["status"], row["error_type"]) == ("failed", "outcome_unknown")
    [approval] = Approvals(control, clocks.system).listed()
    assert approval.status == "unknown"
    assert runs.resumable(control) == []
    await hosts.start()
    with pytest.raises(Conflict):
        await runs.resume_on_host(hosts.home, waiting, "token-3")
    assert shop.calls.count("refund A-1 40") == 1


async def test_a_suspended_run_survives_its_host(hosts: Hosts, control: Database, ask: Ask, shop: Any) -> None:
    process, request = await hosts.start(), ask()
    waiting = await _suspended_and_approved(hosts, control, request)
    await hosts.kill(process)
    assert runs.reap(control, _later) == []
    await hosts.start()
    await runs.resume_on_host(hosts.home, waiting, "token-2")
    row = await until(lambda: next(iter(runs.list_runs(control, status="completed")), None))
    assert row["output"] == {"refunded": "kettle", "refund": "r-1"}
    assert shop.calls == ["read A-1", "refund A-1 40"]


async def test_a_host_told_to_stop_finishes_its_run(
    hosts: Hosts, control: Database, ask: Ask, shop: Any, model_server: FakeModelServer
) -> None:
    model_server.pause()
    process = await hosts.start()
    async with connected(host_socket(hosts.home, EFFECTIVE)) as session:
        asking = asyncio.create_task(post_run(session, ask()))
        await until(lambda: runs.list_runs(control, status="running"))
        process.send_signal(signal.SIGTERM)
        model_server.resume()
        assert (await asking).status == "suspended"
    assert await asyncio.to_thread(process.wait, 60) == 0
    assert _hosts(control) == 0


def _later() -> float:
    return clocks.system() + runs.HOST_LOST_AFTER + 1
