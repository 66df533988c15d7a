"""How long a deploy and an undo take, from the command to the first request served by the version, under load.

`lockgate up` with real processes and a fake model that answers in 5 ms; CLIENTS callers ask RATE times a second in all
while versions are deployed (direct: no rollout strategy) and undone. Limits: 1 s for each, and no failed request.
The yardstick is `lockgate --version`, the start of a command that does nothing.

Usage: python benchmarks/deploy.py [ROUNDS]
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from installed import as_installed

from lockgate.bootstrap import App
from lockgate.gateway.store import watch
from lockgate.project.service import load_project
from lockgate.testing import FakeModelServer, Reply

ROUNDS = 4
CLIENTS = 4
RATE = 60
LIMIT = 1.0
WAYS = ("deploy, command", "undo, command", "deploy, API", "undo, API")
REST = 5.0
"""Seconds between two acts: a new spare is made some seconds after the last one was used."""
LOCKGATE = str(Path(sys.executable).with_name("lockgate"))


class Served(NamedTuple):
    """One answered request."""

    at: float
    status: int
    version: str


class Load:
    """Callers that ask all the time, and what they were answered."""

    def __init__(self, url: str, key: str) -> None:
        self.served: list[Served] = []
        self._url, self._key = url.removeprefix("http://"), key
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def first(self, digest: str, since: float) -> float:
        """Seconds from ``since`` until ``digest`` answered first."""
        give_up = time.perf_counter() + 30
        while time.perf_counter() < give_up:
            for one in reversed(list(self.served)):
                if one.at < since:
                    break
                if one.version.endswith(digest):
                    return (
                        min(each.at for each in self.served if each.at > since and each.version == one.version) - since
                    )
            time.sleep(0.002)
        raise SystemExit(f"{digest} was never served")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        connection = http.client.HTTPConnection(self._url, timeout=30)
        while not self._stop.wait(CLIENTS / RATE):
            try:
                connection.request("POST", "/api/v1/agents/echo/runs", json.dumps({"input": "hi"}), headers)
                answer = connection.getresponse()
                body, status = answer.read(), answer.status
                if status == 200 and json.loads(body)["status"] != "completed":
                    status = 599
                version = answer.headers.get("x-lockgate-version", "")
            except OSError:
                connection.close()
                status, version = 599, ""
            self.served.append(Served(time.perf_counter(), status, version))


def write_project(root: Path, model: str, versions: int) -> None:
    for name in ("agents", "prompts"):
        (root / name).mkdir(parents=True)
    (root / "lockgate.yaml").write_text(
        "project: bench\nowner: bench\nprices: prices.yaml\n"
        f"providers: {{fake: {{kind: openai, base_url: '{model}'}}}}\n"
    )
    (root / "prices.yaml").write_text("fake: {fake-model: {input: 1.0, output: 2.0}}\n")
    for number in range(1, versions + 1):
        (root / f"prompts/echo{number}.md").write_text(f"You answer. Version {number}.\n")
        (root / f"agents/echo.v{number}.yaml").write_text(
            f"agent:\n  name: echo\n  version: {number}\n"
            "  model: {provider: fake, name: fake-model, max_tokens: 64}\n"
            f"  system_prompt: prompts/echo{number}.md\n"
        )


def lockgate(root: Path, *arguments: str) -> tuple[float, str]:
    """Run a command; (when it began, what it said)."""
    began = time.perf_counter()
    done = subprocess.run([LOCKGATE, *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise SystemExit(f"lockgate {' '.join(arguments)}: {done.stderr}")
    return began, done.stdout


def post(url: str, key: str, verb: str, body: dict[str, object]) -> None:
    """Ask the control plane, through the gateway."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v1/agents/echo/{verb}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def seconds(act: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measure(root: Path, url: str, rounds: int) -> tuple[dict[str, list[float]], list[Served]]:
    made = lockgate(root, "keys", "create", "--tenant", "bench", "--env", "dev", "--role", "admin", "--json")[1]
    key = json.loads(made)["key"]
    listed = json.loads(lockgate(root, "versions", "list", "--json")[1])
    digests = {one["file_version"]: one["behaviour_digest"] for one in listed}
    load = Load(url, key)
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    commands: dict[str, list[float]] = {name: [] for name in WAYS}

    def act(name: str, digest: str, do: Callable[[], object]) -> None:
        time.sleep(REST)
        began = time.perf_counter()
        do()
        commands[name].append(time.perf_counter() - began)
        took[name].append(load.first(digest, began))

    try:
        load.first(digests[1], time.perf_counter())
        for number in range(2, 2 * rounds + 2, 2):
            undo = ("rollout", "undo", "echo", "--env", "dev", "--reason", "measured")
            deploy = ("deploy", f"echo@{number}", "--env", "dev", "--direct")
            act("deploy, command", digests[number], lambda deploy=deploy: lockgate(root, *deploy))
            act("undo, command", digests[1], lambda undo=undo: lockgate(root, *undo))
            body = {"version": str(number + 1), "direct": True}
            act("deploy, API", digests[number + 1], lambda body=body: post(url, key, "deploy", body))
            act("undo, API", digests[1], lambda: post(url, key, "undo", {"reason": "measured"}))
    finally:
        load.stop()
    took |= {f"{name} alone": commands[name] for name in WAYS}
    return took, load.served


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with as_installed(), tempfile.TemporaryDirectory() as folder, FakeModelServer() as model:
        model.respond = lambda _: Reply(text="hello", latency=0.005)
        root = Path(folder)
        write_project(root, model.base_url, 2 * rounds + 1)
        lockgate(root, "lock")
        lockgate(root, "deploy", "echo@1", "--env", "dev")
        subprocess.run(
            [LOCKGATE, "rollout", "undo", "echo", "--env", "dev", "--reason", "compiles"],
            cwd=root,
            check=False,
            capture_output=True,
            timeout=60,
        )
        up = subprocess.Popen([LOCKGATE, "up", "--port", "0"], cwd=root, stdout=subprocess.PIPE, text=True)
        try:
            assert up.stdout is not None
            said = ""
            while "Ready in" not in said:
                line = up.stdout.readline()
                if not line:
                    raise SystemExit(f"it did not come up:\n{said}")
                said += line
            found = re.search(r"up at (\S+)", said)
            assert found is not None
            took, served = measure(root, found[1], rounds)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)
        nothing = seconds(lambda: lockgate(root, "--version"), 5)
        control = App(load_project(root)).control
        look = seconds(watch(control), 2000)
        control.close()
    failed = [one for one in served if one.status != 200]
    print(f"{len(served)} requests under way meanwhile, {len(failed)} failed   (limit 0)")
    good = not failed
    for name in WAYS:
        middle, worst = statistics.median(took[name]), max(took[name])
        command = statistics.median(took[f"{name} alone"])
        good = good and middle <= LIMIT
        print(
            f"{name:<15}  to first request served  {middle:.3f} s, worst {worst:.3f} s   (limit {LIMIT:g} s)"
            f"   {middle / LIMIT:.2f}x the limit; answered after {command:.3f} s"
        )
    print(f"a command that does nothing  {nothing:.3f} s")
    print(f"a look for a new revision  {look * 1e6:.0f} us, ten times a second: {look * 10:.2%} of a core")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
