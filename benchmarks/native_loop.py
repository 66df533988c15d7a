"""The native loop beside its ideal: 2,000 two-step runs on a model that takes 100 ms, concurrency 100.

Each run asks the model, calls a tool it asked for, and asks again: 20 rounds of 2 x 100 ms, ideally 4.0 s.
``in process`` measures the loop alone; ``over HTTP`` adds the client and a fake model server on the same machine.
``recorded`` is what a host does: each run and each step written to SQLite before anything depends on it.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from lockgate import clock
from lockgate.ids import new_id
from lockgate.results import RunResult, Usage
from lockgate.runs import RunRequest
from lockgate.runtime.clients import by_session
from lockgate.runtime.direct import DirectClient, Endpoint
from lockgate.runtime.loader import Code
from lockgate.runtime.local import LocalRunner
from lockgate.runtime.service import RunService
from lockgate.storage.engine import open_database
from lockgate.testing import FakeModel, FakeModelServer, ModelRequest, Reply, call
from lockgate.versions.model import AgentVersion, ModelRef, ToolContract

LATENCY = 0.1
CONCURRENCY = 100
DIGEST = "sha256:" + "0" * 64

VERSION = AgentVersion(
    agent="support",
    file_version=1,
    behaviour_digest=DIGEST,
    model=ModelRef(provider="fake", name="model-1"),
    system_prompt="You help customers with their orders.",
    tools=(
        ToolContract(
            name="read_order",
            description="Looks an order up.",
            effect="read",
            python="tools/orders.py:read_order",
            input={"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        ),
    ),
)


def answer(request: ModelRequest) -> Reply:
    usage = Usage(input_tokens=60, output_tokens=12)
    if request.messages[-1]["role"] == "user":
        return Reply(tool_calls=(call("read_order", order_id="A-1"),), usage=usage)
    return Reply(text="It is on its way.", usage=usage)


async def measure(name: str, count: int, run: Callable[[], Awaitable[RunResult]]) -> None:
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one() -> None:
        async with gate:
            result = await run()
        assert (result.status, len(result.tools_used)) == ("completed", 1), result

    await one()
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    took, used = time.perf_counter() - began, time.process_time() - cpu
    ideal = count / CONCURRENCY * 2 * LATENCY
    print(f"{name:<22} {took:6.2f} s   {took / ideal:5.2f} x ideal   {used / count * 1000:5.2f} ms CPU a run")


def request() -> RunRequest:
    return RunRequest(
        run_id=new_id("run"),
        agent="support",
        environment="prod",
        behaviour_digest=DIGEST,
        effective_digest=DIGEST,
        arm="stable",
        rollout_id=None,
        assignment_key="user",
        session=None,
        tenant="acme",
        input="where is order A-1?",
        trace_id="a" * 32,
        parent_span=None,
        token="",
    )


async def compare(count: int, folder: Path) -> None:
    (folder / "tools").mkdir()
    (folder / "tools" / "orders.py").write_text("async def read_order(order_id):\n    return {'id': order_id}\n")
    ideal = count / CONCURRENCY * 2 * LATENCY
    print(f"{count} runs of two model calls, {LATENCY * 1000:.0f} ms each, {CONCURRENCY} at once; ideal {ideal:.1f} s")
    model = FakeModel(answer, latency=LATENCY)
    local = LocalRunner(VERSION, model, folder)
    await measure("in process", count, lambda: local.run("where is order A-1?"))

    control = open_database(folder / "control.db", "control")
    service = RunService(
        VERSION,
        DIGEST,
        control=control,
        clock=clock.system,
        code=Code(folder),
        client_for=lambda token, traceparent: model,
        emit=None,
        host="benchmark",
    )
    await measure("recorded", count, lambda: service.run(request()))
    service.committer.close()
    control.close()

    with FakeModelServer(answer, latency=LATENCY) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            send = by_session(session)
            client = DirectClient(send, lambda name: Endpoint(server.base_url, None), lambda model, usage: 0)
            remote = LocalRunner(VERSION, client, folder)
            await measure("over HTTP (1 process)", count, lambda: remote.run("where is order A-1?"))


def import_seconds() -> float:
    """The best of five imports of the runner, less an empty interpreter."""

    def best(code: str) -> float:
        def once() -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            return time.perf_counter() - began

        return min(once() for _ in range(5))

    return best("import lockgate.runtime.local") - best("pass")


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    count = parser.parse_args(arguments).runs
    print(f"import of the runner: {import_seconds() * 1000:.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(count, Path(folder)))


if __name__ == "__main__":
    main()
