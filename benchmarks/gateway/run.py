"""The gateway beside nginx, a bare pass-through, LiteLLM and Portkey: one upstream, one load, one run.

    apt-get install nginx-light wrk; make gateways compiled
    python benchmarks/gateway/run.py [--seconds 4] [--rounds 3] [--only gateway,bare] [--litellm .venv-peers/litellm]

Each is one process with one worker, and gets the same body from wrk; the upstream is an nginx that answers at once.

nginx       ``proxy_pass`` with connections kept: the limit
bare        granian (RSGI) in front, aiohttp's session behind, bytes copied, on the event loop of the gateway
seam        the same with the server and the client that the gateway has (``http1``, ``upstream``), compiled as it is
gateway     the gateway with everything on: key, rate limit, budget held and settled, routing, the answer checked
            against the JSON Schema that the request names, a span and metrics; with its compiled modules, as a
            wheel has them, where make compiled has built them
litellm     LiteLLM's proxy without a database, one master key; in its production mode, on uvicorn and uvloop
portkey     Portkey's gateway, the provider named by headers; in Node's production mode

Rounds alternate, so that a busy machine slows all of them. Printed are requests a second, latencies, and CPU time a
request, which other processes disturb less; then what the gateway adds to a call at about half load (one connection),
and to a chunk of a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rig

HERE = Path(__file__).resolve()
PEERS = HERE.parents[2] / ".venv-peers"
GOALS = {"bare": 0.6, "litellm": 60.0, "portkey": 5.0}
CHUNKS = 200
GAP = 0.004  # seconds between two chunks


class Contender(NamedTuple):
    url: str
    payload: str
    headers: dict[str, str]
    pid: int


class Round(NamedTuple):
    rate: float
    p50: float
    p99: float
    cpu: float  # µs a request


# --- who takes part ---------------------------------------------------------------------------------------------


def serve_bare(port: int, target: str) -> None:
    """The pass-through: no more than it takes to copy a request and its answer."""
    import aiohttp
    import uvloop
    from granian.constants import HTTPModes
    from granian.server.embed import Server

    url, headers = f"{target}/v1/chat/completions", {"content-type": "application/json"}

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def app(scope: Any, protocol: Any) -> None:
                async with session.post(url, headers=headers, data=bytes(await protocol())) as answer:
                    status, received = answer.status, await answer.read()
                protocol.response_bytes(status, [("content-type", "application/json")], received)

            server = Server(app, port=port, http=HTTPModes.http1, websockets=False, backlog=1024, log_enabled=False)
            await server.serve()

    uvloop.run(main())


def serve_seam(descriptor: int, target: str) -> None:
    """The same with what the gateway does so with."""
    from yarl import URL

    from lockgate.gateway.http1 import HttpRequest
    from lockgate.gateway.serve import serve_forever
    from lockgate.gateway.upstream import Upstream

    url, headers = URL(f"{target}/v1/chat/completions"), {"content-type": "application/json"}
    client = Upstream()

    async def app(request: HttpRequest) -> None:
        answer = await client.send("POST", url, headers=headers, body=await request.whole(), timeout=60.0)
        try:
            request.respond(answer.status, [("content-type", "application/json")], await answer.read())
        finally:
            answer.close()

    async def end_runs(seconds: float) -> None:
        """A pass-through has none."""

    serve_forever(lambda: app, descriptor, end_runs=end_runs, stopped=lambda: None, close=client.close)


@contextlib.contextmanager
def with_nginx(folder: Path, target: str, _: argparse.Namespace) -> Iterator[Contender]:
    address = target.removeprefix("http://")
    http = f"""upstream model {{ server {address}; keepalive 64; keepalive_requests 1000000000; }}
        server {{ listen 127.0.0.1:{{port}}; location / {{ proxy_pass http://model; proxy_http_version 1.1;
          proxy_set_header Connection ""; }} }}"""
    with rig.nginx(folder, "proxy", http) as (url, pid):
        yield Contender(f"{url}/v1/chat/completions", rig.body("stub"), {"Content-Type": "application/json"}, pid)


@contextlib.contextmanager
def with_bare(folder: Path, target: str, _: argparse.Namespace) -> Iterator[Contender]:
    port = rig.free_port()
    with rig.process([sys.executable, str(HERE), "--serve-bare", str(port), "--target", target]) as pid:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield Contender(url, rig.body("stub"), {"Content-Type": "application/json"}, pid)


@contextlib.contextmanager
def with_seam(folder: Path, target: str, _: argparse.Namespace) -> Iterator[Contender]:
    with rig.free_socket() as listener:
        command = [sys.executable, str(HERE), "--serve-seam", str(listener.fileno()), "--target", target]
        with rig.process(command, (listener.fileno(),), environment=rig.released()) as pid:
            url = f"{rig.url_of(listener)}/v1/chat/completions"
            yield Contender(url, rig.body("stub"), {"Content-Type": "application/json"}, pid)


@contextlib.contextmanager
def with_gateway(folder: Path, target: str, _: argparse.Namespace) -> Iterator[Contender]:
    with rig.gateway(folder, target) as (url, key, pids):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        yield Contender(url, rig.body("stub/stub"), headers, pids[0])


@contextlib.contextmanager
def with_litellm(folder: Path, target: str, options: argparse.Namespace) -> Iterator[Contender]:
    program = options.litellm / "bin" / "litellm"
    if not program.exists():
        raise FileNotFoundError(program)
    config, port = folder / "litellm.yaml", rig.free_port()
    stub = {"model": "openai/stub", "api_base": f"{target}/v1", "api_key": "none"}
    models = [{"model_name": "stub", "litellm_params": stub}]
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": "sk-benchmark"}}))
    quiet = {"LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    quiet["LITELLM_MODE"] = "PRODUCTION"
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with rig.process(command, cwd=folder, environment=quiet, log=folder / "litellm.log") as pid:
        headers = {"Authorization": "Bearer sk-benchmark", "Content-Type": "application/json"}
        yield Contender(f"http://127.0.0.1:{port}/v1/chat/completions", rig.body("stub"), headers, pid)


@contextlib.contextmanager
def with_portkey(folder: Path, target: str, options: argparse.Namespace) -> Iterator[Contender]:
    program = options.portkey / "node_modules/@portkey-ai/gateway/build/start-server.js"
    if not program.exists():
        raise FileNotFoundError(program)
    port = rig.free_port()
    command = ["node", str(program), f"--port={port}", "--headless"]
    with rig.process(command, cwd=folder, environment={"NODE_ENV": "production"}, log=folder / "portkey.log") as pid:
        headers = {
            "Authorization": "Bearer none",
            "Content-Type": "application/json",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{target}/v1",
        }
        yield Contender(f"http://127.0.0.1:{port}/v1/chat/completions", rig.body("stub"), headers, pid)


CONTENDERS: dict[str, Callable[[Path, str, argparse.Namespace], contextlib.AbstractContextManager[Contender]]] = {
    "nginx": with_nginx,
    "bare": with_bare,
    "seam": with_seam,
    "gateway": with_gateway,
    "litellm": with_litellm,
    "portkey": with_portkey,
}


# --- streams ----------------------------------------------------------------------------------------------------


class Stamps:
    """A model whose chunks say when they were sent."""

    def __init__(self) -> None:
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(CHUNKS):
                await asyncio.sleep(GAP)
                choice = {"index": 0, "delta": {"content": f"@{time.perf_counter_ns()}@"}, "finish_reason": None}
                self._chunk(writer, {"id": "c", "model": "stub", "choices": [choice]})
            usage = {"prompt_tokens": 9, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 9}
            self._chunk(writer, {"id": "c", "model": "stub", "choices": [], "usage": usage})
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
        writer.close()

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        data = b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def stream_delays(url: str, key: str) -> list[float]:
    """Milliseconds from each chunk's sending to its arrival."""
    import aiohttp

    asked = {"model": "stub/stub", "messages": rig.MESSAGES, "max_tokens": 256, "stream": True}
    delays = []
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=asked, headers={"Authorization": f"Bearer {key}"}) as response,
    ):
        assert response.status == 200, await response.text()
        async for line in response.content:
            arrived, parts = time.perf_counter_ns(), line.split(b"@")
            if len(parts) == 3:
                delays.append((arrived - int(parts[1])) / 1e6)
    return delays


async def streams() -> tuple[float, float]:
    """The median milliseconds of a chunk: from the model itself, and through the gateway."""
    direct: list[float] = []
    through: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        async with Stamps().serving() as target:
            with rig.gateway(Path(name), target) as (url, key, _):
                await asyncio.to_thread(rig.wait_for, url.replace("/v1/chat/completions", "/ready"), "", {})
                for _ in range(3):
                    direct += await stream_delays(f"{target}/v1/chat/completions", key)
                    through += await stream_delays(url, key)
    return statistics.median(direct), statistics.median(through)


# --- the run ----------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> bool:
    wanted: Sequence[str] = options.only.split(",") if options.only else list(CONTENDERS)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        target = stack.enter_context(rig.upstream(folder))
        contenders: dict[str, Contender] = {}
        for one in wanted:
            try:
                contenders[one] = stack.enter_context(CONTENDERS[one](folder, target, options))
            except FileNotFoundError as missing:
                print(f"{one}: left out, there is no {missing}; make gateways installs it")
        for contender in contenders.values():
            rig.wait_for(contender.url, contender.payload, contender.headers)
            rig.load(contender.url, contender.payload, contender.headers, 1, folder)
        rounds: dict[str, list[Round]] = {one: [] for one in contenders}
        for _ in range(options.rounds):
            for one, contender in contenders.items():
                rounds[one].append(measured(contender, options.seconds, folder))
        for one, contender in contenders.items():
            rate, p50, p99, cpu = medians(rounds[one])
            print(
                f"{one:<8} {rate:8,.0f} requests/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {cpu:8.1f} µs CPU "
                f"a request   {rig.rss_mb(contender.pid):5.0f} MB"
            )
        if "gateway" in contenders:
            print(f"the gateway {'as released, compiled' if rig.is_compiled() else 'interpreted; make compiled'}")
        good = compared(rounds)
        if "gateway" in contenders:
            half_load(contenders["gateway"], target, medians(rounds["gateway"]).rate, folder)
    if "gateway" in wanted:
        direct, through = asyncio.run(streams())
        print(f"a chunk of a stream: {through - direct:+.2f} ms (goal: at most 0.2)")
    return good


def measured(contender: Contender, seconds: float, folder: Path) -> Round:
    before = rig.cpu_seconds(contender.pid)
    done = rig.load(contender.url, contender.payload, contender.headers, seconds, folder)
    time.sleep(0.3)  # what is written behind the requests is theirs too
    return Round(
        done.done / done.seconds, done.p50, done.p99, (rig.cpu_seconds(contender.pid) - before) / done.done * 1e6
    )


def medians(rounds: Sequence[Round]) -> Round:
    return Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))


def compared(rounds: dict[str, list[Round]]) -> bool:
    """Print how the gateway does beside each of the others; False when it misses a goal."""
    good = True
    for one in rounds:
        if one == "gateway" or "gateway" not in rounds:
            continue
        ratio = statistics.median(
            ours.rate / theirs.rate for ours, theirs in zip(rounds["gateway"], rounds[one], strict=True)
        )
        by_cpu = medians(rounds[one]).cpu / medians(rounds["gateway"]).cpu
        goal = GOALS.get(one)
        print(f"gateway / {one:<8} {ratio:7.2f}× by requests a second, {by_cpu:7.2f}× by CPU time", end="")
        print(f"   (goal: at least {goal:g}×)" if goal else "")
        good = good and (goal is None or ratio >= goal)
    return good


def half_load(gateway: Contender, target: str, most: float, folder: Path) -> None:
    direct_url = f"{target}/v1/chat/completions"
    direct = rig.load(direct_url, rig.body("stub"), {"Content-Type": "application/json"}, 3, folder, 1)
    through = rig.load(gateway.url, gateway.payload, gateway.headers, 3, folder, 1)
    share = through.done / through.seconds / most
    print(
        f"one connection, {share:.0%} of the most: p50 {through.p50 - direct.p50:+.2f} ms (goal: at most 0.5), "
        f"p99 {through.p99 - direct.p99:+.2f} ms (goal: at most 3)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help=f"of {','.join(CONTENDERS)}")
    parser.add_argument("--litellm", type=Path, default=PEERS / "litellm", help="its virtual environment")
    parser.add_argument("--portkey", type=Path, default=PEERS / "portkey", help="the folder of its node_modules")
    parser.add_argument("--serve-bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve-seam", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare is not None:
        serve_bare(options.serve_bare, options.target)
    elif options.serve_seam is not None:
        serve_seam(options.serve_seam, options.target)
    else:
        raise SystemExit(0 if run(options) else 1)


if __name__ == "__main__":
    main()
