"""``lockgate up`` with its real processes, some of which are killed while calls are under way."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockgate.limits.holdtable import HoldTable
from lockgate.process import alive
from lockgate.testing import FakeModelServer, ModelRequest, Reply, hanging

pytestmark = pytest.mark.xdist_group("up")  # they share one running `up`

LOCKGATE = (sys.executable, "-m", "lockgate")
WAIT = 120.0


class Up:
    """A running ``lockgate up`` (or ``gateway``): its output, its children, its URL."""

    def __init__(self, root: Path, *, command: str = "up") -> None:
        self.root = root
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*LOCKGATE, command, "--port", "0", "--workers", "2"],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: "Ready in" in self.output or self.process.poll() is not None, "it did not come up")
        found = re.search(r"up at (\S+)", self.output)
        assert found, self.output
        self.url = found[1]

    @property
    def output(self) -> str:
        return "".join(self.said)

    def pids(self, name: str) -> list[int]:
        """The processes that were started under names that begin with ``name`` and live, oldest first."""
        found = re.findall(rf"{name}\S*(?: \S+ \S+)? started \(pid (\d+)\)", self.output)
        return [int(pid) for pid in found if running(int(pid))]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WAIT)
        self._reader.join(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)


def running(pid: int) -> bool:
    """Alive, and not only waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False if Path("/proc/self/stat").exists() else alive(pid)


def kill(pid: int) -> None:
    """Kill, and wait for the end: what dies still takes connections."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not running(pid), "a killed process did not end")


def refuses(url: str) -> bool:
    """Whether connections are refused there: not taken, nor left to wait."""
    address = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=60).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the socket was ended at this very moment: the next one tells
        return False
    return False


def wait_until(condition: Callable[[], Any], what: str, seconds: float = WAIT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def lockgate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LOCKGATE, *arguments], cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def model() -> Iterator[FakeModelServer]:
    with FakeModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, model: FakeModelServer) -> Path:
    root = tmp_path_factory.mktemp("up")
    (root / "lockgate.yaml").write_text(
        f"project: test\nowner: us\nprices: prices.yaml\n"
        f"providers: {{fake: {{kind: openai, base_url: '{model.base_url}', timeout: 60}}}}\n"
    )
    (root / "prices.yaml").write_text("fake: {fake-model: {input: 1.0, output: 2.0}}\n")
    (root / "agents").mkdir()
    (root / "prompts").mkdir()
    (root / "prompts" / "echo.md").write_text("You answer.")
    (root / "agents" / "echo.yaml").write_text(
        "agent:\n  name: echo\n  version: 1\n  model: {provider: fake, name: fake-model, max_tokens: 64}\n"
        "  system_prompt: prompts/echo.md\n"
    )
    for command in (("lock",), ("deploy", "echo", "--env", "dev")):
        done = lockgate(root, *command)
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def key(project: Path) -> str:
    made = lockgate(project, "keys", "create", "--tenant", "acme", "--env", "dev", "--role", "admin", "--json")
    return str(json.loads(made.stdout)["key"])


@pytest.fixture(scope="module")
def started() -> Iterator[list[Up]]:
    """The ones that serve the tests of this module, one after the other: a test may stop the last."""
    ups: list[Up] = []
    yield ups
    for one in ups:
        one.stop()


@pytest.fixture
def up(started: list[Up], project: Path, key: str, model: FakeModelServer) -> Up:
    model.respond = lambda _: Reply(text="hello")
    if not started or started[-1].process.poll() is not None:
        started.append(Up(project))
    one = started[-1]
    wait_until(lambda: len(one.pids("gateway-")) == 2, "two workers")
    wait_until(lambda: one.pids("host"), "a host")
    wait_until(lambda: ask(one.url, "/api/v1/rollouts", key)[0] == 200, "a control plane")
    return one


@pytest.fixture
def none_up(started: list[Up]) -> None:
    for one in started:
        one.stop()


def ask(url: str, path: str, key: str, body: Any = None, *, timeout: float = WAIT) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=timeout) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


CHAT = {"model": "fake/fake-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


def chat(up: Up, key: str) -> int:
    return ask(up.url, "/v1/chat/completions", key, CHAT)[0]


def run(up: Up, key: str) -> tuple[int, Any]:
    return ask(up.url, "/api/v1/agents/echo/runs", key, {"input": "hi"})


def under_way(call: Callable[[], object], model: FakeModelServer) -> threading.Thread:
    """The thread in which ``call`` goes on; it has come as far as the model."""
    count = len(model.requests)
    caller = threading.Thread(target=call)
    caller.start()
    model.wait_for_requests(count + 1)
    return caller


def test_one_url_serves_models_agents_and_the_control_plane(up: Up, key: str) -> None:
    assert chat(up, key) == 200
    status, result = run(up, key)
    assert (status, result["status"], result["output"]) == (200, "completed", "hello")
    assert ask(up.url, "/api/v1/rollouts", key)[0] == 200


def test_it_says_what_runs(up: Up) -> None:
    for name in ("gateway-0", "gateway-1", "control", "host echo"):
        assert re.search(rf"^  {name}.* pid \d+$", up.output, re.MULTILINE), up.output


def test_a_killed_worker_leaves_the_others_serving_and_is_replaced(up: Up, key: str) -> None:
    before = up.pids("gateway-")
    kill(before[0])
    answered = [chat(up, key) for _ in range(30)]
    assert set(answered) == {200}
    wait_until(lambda: len(up.pids("gateway-")) == 2, "the worker was not replaced")
    assert before[1] in up.pids("gateway-")


def test_with_all_workers_killed_connections_wait_and_none_is_refused(up: Up, key: str) -> None:
    for pid in up.pids("gateway-"):
        os.kill(pid, signal.SIGKILL)
    assert chat(up, key) == 200


def test_a_killed_control_plane_leaves_calls_and_runs_served_and_comes_back(up: Up, key: str) -> None:
    (before,) = up.pids("control")
    kill(before)
    assert chat(up, key) == 200
    assert run(up, key)[0] == 200
    wait_until(lambda: ask(up.url, "/api/v1/rollouts", key)[0] == 200, "the control plane did not come back")
    assert up.pids("control") != [before]


def test_after_its_host_was_killed_the_next_run_is_served_by_a_new_one(up: Up, key: str) -> None:
    (before,) = up.pids("host")
    kill(before)
    assert run(up, key)[0] == 200
    assert up.pids("host") != [before]


def test_a_killed_workers_hold_is_charged_and_not_lost(up: Up, key: str, project: Path, model: FakeModelServer) -> None:
    assert chat(up, key) == 200
    table = HoldTable(project / ".lockgate" / "holds.table")
    before = next(one for one in table.balances("tenant:dev:acme"))
    model.respond = lambda _: hanging()

    def call() -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):  # the worker dies under it
            chat(up, key)

    caller = under_way(call, model)
    held = next(one for one in table.balances("tenant:dev:acme")).held
    assert held > 0
    for pid in up.pids("gateway-"):
        os.kill(pid, signal.SIGKILL)
    caller.join(WAIT)
    wait_until(lambda: table.open_holds() == 0, "the dead worker's hold was not reaped")
    assert next(one for one in table.balances("tenant:dev:acme")).settled == before.settled + held
    table.close()


def test_a_second_up_for_the_same_project_is_refused(up: Up, project: Path) -> None:
    second = lockgate(project, "up", "--port", "0")
    assert second.returncode == 1
    assert f"already up for '{project}/.lockgate' at {up.url}" in second.stderr


def test_a_port_in_use_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "lockgate.yaml").write_text("project: test\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = lockgate(tmp_path, "up", "--port", str(port))
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr


def test_a_stop_lets_the_calls_under_way_end_and_leaves_nobody(
    project: Path, key: str, model: FakeModelServer, none_up: None
) -> None:
    one = Up(project)
    pids = one.pids("gateway-") + one.pids("control") + one.pids("host")
    go_on = threading.Event()

    def late(_: ModelRequest) -> Reply:
        go_on.wait(WAIT)
        return Reply(text="late")

    model.respond = late
    answered: list[int] = []
    caller = under_way(lambda: answered.append(chat(one, key)), model)
    one.process.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(one.url), "new connections were not refused while the last call went on")
    assert not answered
    go_on.set()
    assert one.stop() == 0
    caller.join(WAIT)
    assert answered == [200]
    assert len(pids) == 4
    assert not any(running(pid) for pid in pids)


def test_a_stop_lets_the_runs_under_way_end_with_all_the_calls_they_still_make(
    project: Path, key: str, model: FakeModelServer, none_up: None
) -> None:
    one = Up(project)
    wait_until(lambda: run(one, key)[0] == 200, "a host")
    go_on = threading.Event()

    def two_steps(request: ModelRequest) -> Reply:
        if request.body["messages"] == CHAT["messages"]:
            return Reply(text="served")  # by a worker that was not told yet
        if len(request.body["messages"]) > 2:
            return Reply(text="seen")
        go_on.wait(WAIT)
        return Reply(text="")  # an empty answer is asked for again

    model.respond = two_steps
    answered: list[Any] = []
    caller = under_way(lambda: answered.append(run(one, key)), model)
    one.process.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(one.url) or ask(one.url, "/ready", key)[0] == 503, "the gateway still says ready")
    wait_until(lambda: refuses(one.url) or chat(one, key) == 503, "new calls are still served")
    assert not answered
    go_on.set()
    assert one.stop() == 0
    caller.join(WAIT)
    ((status, ended),) = answered
    assert (status, ended["status"], ended["output"]) == (200, "completed", "seen"), (ended, one.output)
    assert "did not end within" not in one.output  # with the last run, nothing is left to wait for


def test_the_gateway_alone_serves_models_and_says_that_there_is_no_control_plane(
    project: Path, key: str, model: FakeModelServer, none_up: None
) -> None:
    model.respond = lambda _: Reply(text="hello")
    one = Up(project, command="gateway")
    try:
        assert chat(one, key) == 200
        assert ask(one.url, "/api/v1/rollouts", key)[0] == 503
        assert one.pids("control") + one.pids("host") == []
    finally:
        one.stop()


def test_a_killed_supervisor_leaves_no_orphan(project: Path, none_up: None) -> None:
    one = Up(project)
    pids = one.pids("gateway-") + one.pids("control") + one.pids("host")
    one.process.kill()
    one.stop()
    wait_until(lambda: not any(running(pid) for pid in pids), "a child outlived its supervisor")
