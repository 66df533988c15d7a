"""Two whole gateways over HTTP, on one PostgreSQL: together they never spend more than the cap they share.

The provider writes down what each call really used, by the span that asked for it. The calls are many at once; clients
leave, the provider fails in every way there is, and workers are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import psycopg
import pytest
from sqlalchemy import make_url

from lockgate.bootstrap import App
from lockgate.limits.charges import Charge, Used
from lockgate.project.service import load_project
from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply, failing
from lockgate.testing.replies import ModelRequest

pytestmark = pytest.mark.integration_only

CAP_USD, AT_ONCE, SECONDS, MOST = 0.25, 32, 8.0, 200  # MOST: tokens of an answer
SHARES = (4, 60)  # clients of each: what the busy one is charged too much must not be taken from the other
TENANT = "tenant:dev:acme"


class Provider:
    """Answers in every way there is, and writes down what it bills: $1 and $2 a million tokens."""

    def __init__(self) -> None:
        self.billed: dict[str, tuple[int, int]] = {}  # by span: nano-USD, tokens
        self.is_stuck = False  # bills, and does not answer
        self._chance = random.Random(11)

    def __call__(self, request: ModelRequest) -> Reply:
        span = request.headers["traceparent"].split("-")[2]
        if self.is_stuck:
            self.billed[span] = (20 * 1000 + MOST * 2000, 20 + MOST)
            return Reply(text="too late", latency=60.0)
        fate, used = self._chance.random(), Usage(input_tokens=20, output_tokens=self._chance.randrange(1, MOST))
        if fate < 0.1:
            return failing(503, "not now")
        self.billed[span] = (used.input_tokens * 1000 + used.output_tokens * 2000, used.total_tokens)
        if fate < 0.13:
            return Reply(failure="close")
        if fate < 0.16:
            return Reply(text="cut off", usage=used, failure="cut")
        if fate < 0.2:
            return Reply(text="it does not say", report_usage=False)
        return Reply(text="an answer", usage=used, latency=self._chance.random() * 0.02)

    def __len__(self) -> int:
        return sum(nano for nano, _ in list(self.billed.values()))

    def figure(self, charge: Charge) -> Used:
        return Used(*self.billed.get(charge.id, (0, 0)))


class Machine:
    """One ``lockgate up``, with a state home of its own."""

    def __init__(self, root: Path, model: FakeModelServer) -> None:
        root.mkdir()
        (root / "prices.yaml").write_text("fake: {fake-model: {input: 1.0, output: 2.0}}\n")
        (root / "lockgate.yaml").write_text(
            f"project: test\nprices: prices.yaml\nlimits: {{tenants: {{acme: {{daily_usd: {CAP_USD}}}}}}}\n"
            "providers:\n"
            f"  fake: {{kind: openai, base_url: '{model.base_url}', timeout: 10,"
            "  breaker: {failure_threshold: 1000}}\n"
        )
        self.app = App(load_project(root))
        self._said: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lockgate", "up", "--port", "0", "--workers", "2", "--drain", "3"],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: "Ready in" in "".join(self._said))
        self.url = re.findall(r"up at (\S+)", "".join(self._said))[0]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)

    def kill_a_worker(self, chance: random.Random) -> None:
        living = self._living(r"gateway-\d")
        if living:
            os.kill(chance.choice(living), signal.SIGKILL)

    def _living(self, name: str = "") -> list[int]:
        pids = [int(pid) for pid in re.findall(rf"{name} started \(pid (\d+)\)", "".join(self._said))]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command on this machine."""
        arguments = [sys.executable, "-m", "lockgate", *command]
        return subprocess.run(
            arguments, cwd=self.app.project.root, capture_output=True, text=True, timeout=120, check=False
        )

    def lose(self) -> None:
        """The whole machine at once, with its disk."""
        self._process.kill()
        for pid in self._living():  # left alone they would let the calls under way end
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        wait_until(lambda: not self._living())  # who still writes would put back what is removed
        shutil.rmtree(self.app.home)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._reader.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def spent(self) -> tuple[int, int]:
        """Settled and held, nano-USD."""
        found = [one for one in self.app.holds.balances(TENANT) if one.unit == "usd"]
        return sum(one.settled for one in found), sum(one.held for one in found)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def machines(
    tmp_path: Path, postgres_database: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Machine]]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    traces = make_url(postgres_database).set(database=f"traces_{os.getpid()}_{time.time_ns()}")
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(f"create database {traces.database}")  # type: ignore[arg-type]
    monkeypatch.setenv("LOCKGATE_CONTROL_URL", postgres_database)
    monkeypatch.setenv("LOCKGATE_TRACES_URL", traces.render_as_string(hide_password=False))
    running: list[Machine] = []
    with FakeModelServer(provider) as model:
        try:
            for name in ("a", "b"):
                running.append(Machine(tmp_path / name, model))
            yield running
        finally:
            for machine in running:
                machine.stop()
                machine.app.control.close()
                machine.app.traces.close()


async def storm(
    machines: list[Machine], provider: Provider, enough: Callable[[Counter[str]], bool], *, kills: bool
) -> Counter[str]:
    """Calls as fast as they go, until the time is up and ``enough`` was seen. What became of them."""
    key = machines[0].app.keys.create(tenant="acme", environment="dev")[0]
    chance, seen, began = random.Random(5), Counter[str](), time.monotonic()

    def goes_on() -> bool:
        took = time.monotonic() - began
        return took < SECONDS or (took < 10 * SECONDS and not enough(seen))

    async def client(session: aiohttp.ClientSession, url: str) -> None:
        while goes_on():
            body = {"model": "fake/fake-model", "max_tokens": MOST, "stream": chance.random() < 0.4}
            body["messages"] = [{"role": "user", "content": "hello"}]
            patience = chance.random() * 0.03 if chance.random() < 0.1 else 60.0
            try:
                async with asyncio.timeout(patience):
                    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                        await answer.read()
                        seen[str(answer.status)] += 1
                        if answer.status == 429:
                            await asyncio.sleep(0.05)
            except TimeoutError:
                seen["left"] += 1
            except aiohttp.ClientError:
                seen["broke"] += 1

    async def watch() -> None:
        cap, turn, due = round(CAP_USD * 1e9), 0, 0
        while goes_on():
            await asyncio.sleep(0.1)
            turn += 1
            assert sum(machine.spent()[0] for machine in machines) <= cap
            assert len(provider) <= cap
            answered = seen["200"] + seen["429"]
            if kills and turn % 12 == 0 and answered >= due:  # a busy machine takes long to start another
                chance.choice(machines).kill_a_worker(chance)
                due = answered + 100

    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        asked = [machine.url for machine, share in zip(machines, SHARES, strict=True) for _ in range(share)]
        await asyncio.gather(watch(), *(client(session, url) for url in asked))
    return seen


async def test_after_the_storm_exactly_what_was_used_is_spent(machines: list[Machine], provider: Provider) -> None:
    def settled() -> int:
        return sum(machine.spent()[0] for machine in machines)

    def did_all(seen: Counter[str]) -> bool:  # and the cap was what stopped it
        return min(seen["200"], seen["429"], seen["left"]) > 10 and settled() > 0.9 * CAP_USD * 1e9

    def is_exact() -> bool:  # once the last spans are written down
        for machine in machines:
            machine.app.accounting.note()
            machine.app.charges.correct_all(provider.figure)
        return settled() == len(provider)

    seen = await storm(machines, provider, did_all, kills=False)
    assert did_all(seen), (seen, settled())
    wait_until(lambda: all(machine.spent()[1] == 0 for machine in machines))
    assert len(provider) <= settled() <= CAP_USD * 1e9
    wait_until(is_exact)
    for machine in machines:
        machine.app.ledger.persist(machine.app.holds)
    assert [line for line in machines[0].app.accounting.reconcile() if not line.agrees] == []


async def test_workers_that_are_killed_do_not_let_the_cap_be_passed(
    machines: list[Machine], provider: Provider
) -> None:
    def did_all(seen: Counter[str]) -> bool:
        return min(seen["200"], seen["429"], seen["broke"]) > 0

    seen = await storm(machines, provider, did_all, kills=True)
    assert did_all(seen), seen
    wait_until(lambda: all(machine.spent()[1] == 0 for machine in machines))
    assert len(provider) <= sum(machine.spent()[0] for machine in machines) <= CAP_USD * 1e9


async def test_a_machine_that_is_lost_mid_call_does_not_let_the_cap_be_passed(
    machines: list[Machine], provider: Provider, postgres_database: str
) -> None:
    lost, other = machines
    name, cap = lost.app.ledger.machine, round(CAP_USD * 1e9)
    key = lost.app.keys.create(tenant="acme", environment="dev")[0]
    body = {"model": "fake/fake-model", "max_tokens": MOST, "messages": [{"role": "user", "content": "hello"}]}
    seen = Counter[str]()

    async def ask(session: aiohttp.ClientSession, machine: Machine) -> int:
        async with session.post(f"{machine.url}/v1/chat/completions", json=body) as answer:
            await answer.read()
            seen[str(answer.status)] += 1
            return answer.status

    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        for _ in range(20):
            await ask(session, lost)
        provider.is_stuck, before = True, len(provider.billed)
        stuck = [asyncio.ensure_future(ask(session, lost)) for _ in range(AT_ONCE)]
        await asyncio.to_thread(wait_until, lambda: len(provider.billed) >= before + AT_ONCE)
        await asyncio.to_thread(lost.lose)
        ends = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(one, aiohttp.ClientError) for one in ends), ends
        provider.is_stuck = False
        with psycopg.connect(postgres_database, autocommit=True) as connection:  # ten minutes later
            connection.execute("update machines set seen_at = seen_at - 700 where name = %s", [name])
        done = await asyncio.to_thread(other.run, "budgets", "reconcile", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {charge.machine for charge in other.app.charges.open() if charge.reason == "lost"} == {name}

        async def client() -> None:
            refused = 0
            while refused < 20:
                refused += await ask(session, other) == 429

        async with asyncio.timeout(120):
            await asyncio.gather(*(client() for _ in range(8)))
    assert min(seen["200"], seen["429"]) > 20, seen
    wait_until(lambda: other.spent()[1] == 0)
    other.app.ledger.persist(other.app.holds)
    settled = sum(one.settled for one in other.app.ledger.balances(None, TENANT) if one.unit == "usd")
    assert 0.9 * cap < settled <= cap
    assert len(provider) <= settled


async def test_a_machine_that_stops_leases_no_more_than_it_spent(
    machines: list[Machine], postgres_database: str
) -> None:
    leaving = machines[0]
    key = leaving.app.keys.create(tenant="acme", environment="dev")[0]
    body = {"model": "fake/fake-model", "max_tokens": MOST, "messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        for _ in range(20):
            async with session.post(f"{leaving.url}/v1/chat/completions", json=body) as answer:
                await answer.read()
    await asyncio.to_thread(leaving.stop)
    with psycopg.connect(postgres_database) as connection:
        rows = connection.execute(
            "select granted, settled from ledger where machine = %s and account = %s and unit = 'usd'",
            [leaving.app.ledger.machine, TENANT],
        ).fetchall()
    assert [granted for granted, _ in rows] == [settled for _, settled in rows]
    assert 0 < sum(settled for _, settled in rows) == leaving.spent()[0]
