"""The gateway's proxy path beside a bare pass-through: same server, same client library, same run.

    python benchmarks/gateway/run.py [--seconds 4] [--rounds 3]

Both are one process with one worker: granian RSGI in front, aiohttp behind. The pass-through copies bytes. The
gateway checks a key, decodes the request, holds its worst case, encodes it anew, sends it, reads the usage, settles
the hold, and writes a span and metrics. Rounds alternate, so that a busy machine slows both. Printed are requests a
second, and CPU time a request, which other processes disturb less. Load comes from wrk, the upstream is nginx with a
fixed answer; without them, from this script and from a granian stub (it says which).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CONNECTIONS = 32
TARGET = 0.5
HERE = Path(__file__).resolve()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The order was delivered on Tuesday. " * 4},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 42, "completion_tokens": 36, "total_tokens": 78},
    },
    separators=(",", ":"),
)
MESSAGES = [
    {"role": "system", "content": "You answer customers of a shop. Be brief and kind."},
    {"role": "user", "content": "Where is my order 4711? It should have been here on Monday."},
]


def body(model: str) -> str:
    return json.dumps({"model": model, "messages": MESSAGES, "temperature": 0.1, "max_tokens": 256})


def free_socket() -> socket.socket:
    from lockgate.gateway.serve import listen

    return listen("127.0.0.1", 0)


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    with free_socket() as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], descriptors: tuple[int, ...] = (), cwd: Path | None = None) -> Iterator[int]:
    child = subprocess.Popen(command, pass_fds=descriptors, cwd=cwd)
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[tuple[str, str]]:
    """A stub that answers every request alike: its URL, and what it is."""
    nginx = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
    if nginx:
        port = free_port()
        config = folder / "nginx.conf"
        config.write_text(
            f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
            events {{ worker_connections 1024; }}
            http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
              client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fcgi;
              uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
              server {{ listen 127.0.0.1:{port}; default_type application/json;
                location / {{ return 200 '{ANSWER}'; }} }} }}"""
        )
        with process([nginx, "-c", str(config), "-p", str(folder)]):
            yield f"http://127.0.0.1:{port}", "nginx"
    else:
        with free_socket() as listener:
            fd = listener.fileno()
            with process([sys.executable, str(HERE), "--stub", str(fd)], (fd,)):
                yield url_of(listener), "a granian stub"


def serve_stub(fd: int) -> None:
    from lockgate.gateway.serve import serve_forever

    payload = ANSWER.encode()

    async def app(scope: object, protocol: object) -> None:
        await protocol()  # type: ignore[operator]
        protocol.response_bytes(200, [("content-type", "application/json")], payload)  # type: ignore[attr-defined]

    async def close() -> None:
        pass

    serve_forever(lambda: app, fd, close=close)


def serve_bare(fd: int, target: str) -> None:
    """The pass-through: no more than it takes to copy a request and its answer."""
    from yarl import URL

    from lockgate.gateway.serve import serve_forever
    from lockgate.gateway.upstream import Upstream

    client, url = Upstream(), URL(f"{target}/v1/chat/completions")
    headers = {"content-type": "application/json"}

    async def app(scope: object, protocol: object) -> None:
        sent = bytes(await protocol())  # type: ignore[operator]
        answer = await client.send("POST", url, headers=headers, body=sent, timeout=60.0)
        received = await answer.read()
        answer.close()
        protocol.response_bytes(answer.status, [("content-type", "application/json")], received)  # type: ignore[attr-defined]

    serve_forever(lambda: app, fd, close=client.close)


def wait_for(url: str, data: bytes | None, headers: dict[str, str]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=5) as response:
                assert response.status == 200
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def load(url: str, payload: str, headers: dict[str, str], seconds: float, folder: Path) -> tuple[int, float, float]:
    """Requests done, seconds they took, and the median latency in milliseconds."""
    if shutil.which("wrk"):
        script = folder / "load.lua"
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        script.write_text(f"wrk.method = 'POST'\nwrk.body = [==[{payload}]==]\n{lines}\n")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(f"requests failed:\n{said}")
        done = re.search(r"(\d+) requests in ([\d.]+)s", said)
        median = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
        assert done is not None
        assert median is not None
        scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[median[2]]
        return int(done[1]), float(done[2]), float(median[1]) * scale
    return asyncio.run(_load(url, payload.encode(), headers, seconds))


async def _load(url: str, payload: bytes, headers: dict[str, str], seconds: float) -> tuple[int, float, float]:
    import aiohttp

    took: list[float] = []
    began = time.perf_counter()

    async def one(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() - began < seconds:
            at = time.perf_counter()
            async with session.post(url, data=payload, headers=headers) as response:
                await response.read()
                assert response.status == 200
            took.append(time.perf_counter() - at)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(CONNECTIONS)))
    return len(took), time.perf_counter() - began, statistics.median(took) * 1000


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (Linux); 0.0 where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def run(seconds: float, rounds: int) -> float:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        target, kind = stack.enter_context(upstream(folder))
        print(
            f"load: {'wrk' if shutil.which('wrk') else 'this script'} with {CONNECTIONS} connections; upstream: {kind}"
        )
        project = folder / "project"
        project.mkdir()
        (project / "prices.yaml").write_text("stub:\n  stub: {input: 0.15, output: 0.6}\n")
        (project / "lockgate.yaml").write_text(
            f"project: benchmark\nprices: prices.yaml\nproviders:\n  stub: {{kind: openai, base_url: '{target}/v1'}}\n"
        )
        from lockgate.bootstrap import open_app

        app = open_app(project)
        key, _ = app.keys.create(tenant="acme", environment="prod")
        bare, lockgate = stack.enter_context(free_socket()), stack.enter_context(free_socket())
        options = ("--index", "0", "--parent", str(os.getpid()), "--drain", "2")
        pids = {
            "bare pass-through": stack.enter_context(
                process([sys.executable, str(HERE), "--bare", str(bare.fileno()), "--target", target], (bare.fileno(),))
            ),
            "gateway": stack.enter_context(
                process(
                    [sys.executable, "-m", "lockgate.gateway.worker", "--fd", str(lockgate.fileno()), *options],
                    (lockgate.fileno(),),
                    project,
                )
            ),
        }
        urls = {
            name: f"{url_of(listener)}/v1/chat/completions"
            for name, listener in (("bare pass-through", bare), ("gateway", lockgate))
        }
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        payloads = {"bare pass-through": body("stub"), "gateway": body("stub/stub")}
        for name, url in urls.items():
            wait_for(url, payloads[name].encode(), headers)
            load(url, payloads[name], headers, 1.0, folder)
        rates: dict[str, list[float]] = {name: [] for name in urls}
        cpu: dict[str, list[float]] = {name: [] for name in urls}
        medians: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(rounds):
            for name, url in urls.items():
                before = cpu_seconds(pids[name])
                done, took, median = load(url, payloads[name], headers, seconds, folder)
                rates[name].append(done / took)
                cpu[name].append((cpu_seconds(pids[name]) - before) / done * 1e6)
                medians[name].append(median)
        for name in urls:
            print(
                f"{name:<18} {statistics.median(rates[name]):8,.0f} requests/s   p50 "
                f"{statistics.median(medians[name]):6.2f} ms   {statistics.median(cpu[name]):6.1f} µs CPU a request"
                f"   {rss_mb(pids[name]):5.0f} MB"
            )
        ratio = statistics.median(
            [ours / theirs for ours, theirs in zip(rates["gateway"], rates["bare pass-through"], strict=True)]
        )
        by_cpu = statistics.median(cpu["bare pass-through"]) / statistics.median(cpu["gateway"])
        print(f"ratio: {ratio:.2f}× by requests a second, {by_cpu:.2f}× by CPU time (target: at least {TARGET}×)")
        return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stub", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stub is not None:
        serve_stub(arguments.stub)
    elif arguments.bare is not None:
        serve_bare(arguments.bare, arguments.target)
    else:
        raise SystemExit(0 if run(arguments.seconds, arguments.rounds) >= TARGET else 1)


if __name__ == "__main__":
    main()
