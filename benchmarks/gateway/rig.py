"""What the gateway's benchmarks share: an upstream, a project with everything on, processes, load."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

CONNECTIONS = 32
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}
SAID = json.dumps({"answer": "The order was delivered on Tuesday. " * 3, "sure": True})
ANSWER = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 42, "completion_tokens": 36, "total_tokens": 78},
    },
    separators=(",", ":"),
)
MESSAGES = [
    {"role": "system", "content": "You answer customers of a shop. Be brief and kind."},
    {"role": "user", "content": "Where is my order 4711? It should have been here on Monday."},
]
ALL_ON = """
limits:
  tenants:
    "*": {daily_usd: 1000000, requests_per_minute: 100000000}
tenants:
  "*": {output: [schema]}
"""
"""A budget, a rate limit and a schema guard that every call meets and none is stopped by."""


def body(model: str) -> str:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    asked = {"model": model, "messages": MESSAGES, "temperature": 0.1, "max_tokens": 256, "response_format": form}
    return json.dumps(asked)


def free_socket() -> socket.socket:
    from lockgate.gateway.serve import listen

    return listen("127.0.0.1", 0)


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    with free_socket() as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def process(
    command: list[str],
    descriptors: tuple[int, ...] = (),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[int]:
    """Its output goes to ``log``, where that is given."""
    with contextlib.ExitStack() as stack:
        out = None if log is None else stack.enter_context(log.open("wb"))
        child = subprocess.Popen(
            command, pass_fds=descriptors, cwd=cwd, env={**os.environ, **(environment or {})}, stdout=out, stderr=out
        )
        try:
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def nginx_binary() -> str | None:
    return shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)


@contextlib.contextmanager
def nginx(folder: Path, name: str, http: str) -> Iterator[tuple[str, int]]:
    """An nginx of one worker: its URL and its process id. ``http`` may name ``{port}``."""
    binary, port, place = nginx_binary(), free_port(), folder / name
    if binary is None:
        raise SystemExit("nginx is not there: apt-get install nginx-light wrk")
    place.mkdir()
    temporary = " ".join(f"{kind}_temp_path {place}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (place / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
        events {{ worker_connections 1024; }}
        http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
          client_body_temp_path {place}/body; {temporary}
          {http.replace("{port}", str(port))} }}"""
    )
    with process([binary, "-c", str(place / "nginx.conf"), "-p", str(place)]) as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[str]:
    """A model that answers every request alike, at once: its URL."""
    said = ANSWER.replace("\\", "\\\\")
    server = (
        f"server {{ listen 127.0.0.1:{{port}}; default_type application/json; location / {{ return 200 '{said}'; }} }}"
    )
    with nginx(folder, "upstream", server) as (url, _):
        yield url


COMPILED = Path(__file__).resolve().parents[2] / ".compiled"


def is_compiled() -> bool:
    """Whether ``make compiled`` has compiled, from the sources as they are, what a released wheel has compiled."""
    done = COMPILED / ".done"
    if not done.exists():
        return False
    sources = (COMPILED.parent / "src").rglob("*.py")
    return done.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def released() -> dict[str, str]:
    """The environment in which a process finds the compiled modules, where :func:`is_compiled`."""
    return {"PYTHONPATH": str(COMPILED)} if is_compiled() else {}


class Gateway(NamedTuple):
    url: str
    key: str
    pids: list[int]


@contextlib.contextmanager
def gateway(folder: Path, target: str, *, workers: int = 1, timeout: int = 60) -> Iterator[Gateway]:
    """Gateway workers on one socket, in a project with everything on: as released, where :func:`is_compiled`."""
    project = folder / "project"
    project.mkdir()
    (project / "prices.yaml").write_text("stub:\n  stub: {input: 0.15, output: 0.6}\n")
    (project / "lockgate.yaml").write_text(
        f"project: benchmark\nprices: prices.yaml\n"
        f"providers:\n  stub: {{kind: openai, base_url: '{target}/v1', timeout: {timeout}}}\n{ALL_ON}"
    )
    from lockgate.bootstrap import open_app
    from lockgate.gateway.supervisor import WORKERS_VARIABLE

    key, _ = open_app(project).keys.create(tenant="acme", environment="prod")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(free_socket())
        command = [sys.executable, "-m", "lockgate.gateway.worker", "--fd", str(listener.fileno())]
        command += ["--parent", str(os.getpid()), "--drain", "2"]
        environment = {**released(), WORKERS_VARIABLE: str(workers)}
        pids = [
            stack.enter_context(process([*command, "--index", str(index)], (listener.fileno(),), project, environment))
            for index in range(workers)
        ]
        yield Gateway(f"{url_of(listener)}/v1/chat/completions", key, pids)


def wait_for(url: str, payload: str, headers: dict[str, str], seconds: float = 60.0) -> None:
    """Until it answers 200; a GET when there is no payload."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, payload.encode() or None, headers), timeout=10):
                return
        except OSError as failure:
            if time.monotonic() > deadline:
                said = failure.read()[:500] if isinstance(failure, urllib.error.HTTPError) else b""
                raise SystemExit(f"{url} does not answer: {failure} {said!r}") from failure
            time.sleep(0.2)


class Load(NamedTuple):
    done: int
    seconds: float
    p50: float  # ms
    p99: float  # ms


def load(
    url: str, payload: str, headers: Mapping[str, str], seconds: float, folder: Path, connections: int = CONNECTIONS
) -> Load:
    """wrk with one thread."""
    script = folder / "load.lua"
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    script.write_text(f"wrk.method = 'POST'\nwrk.body = [==[{payload}]==]\n{lines}\n")
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "30s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"requests failed:\n{said}")
    done = re.search(r"(\d+) requests in ([\d.]+)(s|m)", said)
    assert done is not None
    return Load(
        int(done[1]), float(done[2]) * (60 if done[3] == "m" else 1), _percentile(said, 50), _percentile(said, 99)
    )


def _percentile(said: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", said)
    assert found is not None
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of those that it started (Linux); 0.0 where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """The processes that a process started, and that are still there (Linux)."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _words(task / "children")]
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # a thread that has ended
        return []


def rss_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0
