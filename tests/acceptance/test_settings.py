"""`lockgate settings` on a running `lockgate up`: every worker takes a change, and it outlives workers and restarts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockgate.storage import audit
from lockgate.testing import FakeModelServer

pytestmark = pytest.mark.xdist_group("up")

LOCKGATE = (sys.executable, "-m", "lockgate")
WAIT = 120.0
ASKED = 12
"""Connections of their own, one after another: two workers share the port, and each takes some."""


class Up:
    def __init__(self, root: Path) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*LOCKGATE, "up", "--port", "0", "--workers", "2"],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        eventually(lambda: "Ready in" in self.output or self.process.poll() is not None, self)
        found = re.search(r"up at (\S+)", self.output)
        assert found, self.output
        self.url = found[1]

    @property
    def output(self) -> str:
        return "".join(self.said)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(WAIT)
        self._reader.join(60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)


def eventually(condition: Callable[[], Any], up: Up) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, up.output
        time.sleep(0.05)


def call(root: Path, *arguments: str, exit_code: int = 0) -> str:
    done = subprocess.run([*LOCKGATE, *arguments], cwd=root, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


def ask(up: Up, key: str) -> tuple[int, str]:
    body = {"model": "fake/fake-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "connection": "close"}
    request = urllib.request.Request(up.url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def all_answer(up: Up, key: str, status: int) -> bool:
    return all(ask(up, key)[0] == status for _ in range(ASKED))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    with FakeModelServer() as server:
        files = {
            "lockgate.yaml": f"project: shop\nowner: us\nprices: prices.yaml\n"
            f"providers: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n",
            "prices.yaml": "fake: {fake-model: {input: 1.0, output: 2.0}}\n",
            "prompts/echo.md": "You answer.\n",
            "agents/echo.yaml": "agent:\n  name: echo\n  version: 1\n  model: {provider: fake, name: fake-model}\n"
            "  system_prompt: prompts/echo.md\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        call(tmp_path, "lock")
        call(tmp_path, "deploy", "echo", "--env", "dev")
        yield tmp_path


def test_a_switch_holds_in_every_worker_through_a_broken_file_a_dead_worker_and_a_restart(root: Path) -> None:
    key = json.loads(call(root, "keys", "create", "--tenant", "acme", "--env", "dev", "--json"))["key"]
    up = Up(root)
    try:
        assert all_answer(up, key, 200)
        call(root, "settings", "set", "kill", "on", "--tenant", "acme", "--reason", "stolen key")
        eventually(lambda: all_answer(up, key, 403), up)
        assert "stolen key" in ask(up, key)[1]

        file = root / "lockgate.yaml"
        good = file.read_text()
        file.write_text(good + "environments: {dev: {agents: 7}}\n")
        eventually(lambda: "the last good" in call(root, "alerts", "list"), up)
        worker = re.findall(r"gateway-0 started \(pid (\d+)\)", up.output)[-1]
        subprocess.run(["kill", "-9", worker], check=True)
        eventually(lambda: len(re.findall(r"gateway-0 started", up.output)) == 2, up)
        assert all_answer(up, key, 403)

        call(root, "settings", "unset", "kill", "--tenant", "acme", "--reason", "a new key is out")
        eventually(lambda: all_answer(up, key, 200), up)
        call(root, "settings", "set", "limit.daily_usd", "0", "--tenant", "acme")
        eventually(lambda: all_answer(up, key, 429), up)
        file.write_text(good)
        eventually(lambda: "the last good" not in call(root, "alerts", "list"), up)
    finally:
        up.stop()
    up = Up(root)
    try:
        assert all_answer(up, key, 429)
    finally:
        up.stop()
    found = json.loads(call(root, "settings", "history", "--json"))
    assert [(one["name"], one["removed"], one["reason"]) for one in found] == [
        ("limit.daily_usd", False, ""),
        ("kill", True, "a new key is out"),
        ("kill", False, "stolen key"),
    ]
    from lockgate.bootstrap import open_app

    control = open_app(root).control
    with control.read() as connection:
        assert audit.verify(connection) >= len(found)
    control.close()


def test_the_command_refuses_what_it_cannot_do_in_one_clear_error(root: Path) -> None:
    shown = call(root, "settings", "set", "limit.daily_usd", "lots", "--tenant", "acme", exit_code=2)
    assert "'limit.daily_usd' is 'lots'" in shown
    assert "→ it takes USD" in shown
    assert "only through a new digest" in call(root, "settings", "set", "model.temperature", "1", exit_code=1)
    assert "names nothing to refuse" in call(root, "settings", "set", "kill", "on", "-r", "x", exit_code=2)
    assert json.loads(call(root, "settings", "list", "--json")) == []
