"""A model served on this machine: llama.cpp's own HTTP server, in a child process of ours (package ``xllamacpp``).

Where cores are few it is there several times (:data:`COPIES`), behind one address. The child writes where it listens
to ``<home>/run/local-model-<provider>[-<weights>].json``; whoever needs the model joins the one that runs, or starts
one for as long as it needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import LockgateError, MissingExtra, Unavailable
from lockgate.gateway import weights
from lockgate.process import alive, die_with_parent
from lockgate.project.model import Project, ResolvedProvider

CORES = os.cpu_count() or 1
COPIES = CORES if CORES <= 3 else 1
"""Servers in the process, each with all of the weights (in memory once) and its share of the cores. On two cores two of
one thread answer 5 to 12 % more requests than one of two threads when nothing else runs, and several times as many when
something does: two threads wait for one another some hundred times a token, spinning, whenever one is interrupted."""
SLOTS = max(1, CORES // 2 // COPIES)
"""Requests a copy decodes at once. A core cannot serve two: the others wait their turn, and prompts that begin alike
are kept for them."""
SLOT_TOKENS = 4096
PROMPT_CACHE_MIB = 256 // COPIES
"""Prompts a copy keeps beside those in the slots. The library's default, 8 GiB, fills a laptop's memory in an hour."""
START_SECONDS = 120.0
CLAIM_SECONDS = 0.5
"""How often a server looks whether it is the one that is named."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A local model that runs: what its state file says. ``base_url`` ends with ``/v1``; empty while it starts."""

    pid: int
    base_url: str
    weights: str


def state_file(home: Path, provider: ResolvedProvider) -> Path:
    return home / "run" / f"local-model-{provider.local_name}.json"


def running(home: Path, provider: ResolvedProvider) -> Served | None:
    """The model server of this provider, if it runs and has the right weights."""
    served = _stated(state_file(home, provider))
    if served is None or served.weights != (provider.weights or weights.DEFAULT) or not served.base_url:
        return None
    return served if _healthy(served.base_url) else None


def _stated(state: Path) -> Served | None:
    """What the state file says, if that process lives."""
    try:
        served = msgspec.json.decode(state.read_bytes(), type=Served)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return served if alive(served.pid) else None


def command(project: Project, provider: ResolvedProvider, *, parent: int) -> tuple[str, ...]:
    """The command line of the child that serves the provider."""
    state = state_file(project.home, provider)
    name = provider.weights or weights.DEFAULT
    arguments = ("--weights", name, "--root", str(project.root), "--state", str(state), "--parent", str(parent))
    return (sys.executable, "-m", "lockgate.gateway.local_model", *arguments)


@contextmanager
def ensure_local_model(
    project: Project, provider: ResolvedProvider, *, progress: weights.Progress | None = None
) -> Iterator[str]:
    """The base URL of the provider's model server: of the one that runs, else of one that ends with the block.

    Weights are downloaded first if need be. Raises :class:`MissingExtra` without xllamacpp.
    """
    served = running(project.home, provider) or _wait_for_another(project.home, provider)
    if served is not None:
        yield served.base_url
        return
    check_installed()
    weights.find(provider.weights or weights.DEFAULT, root=project.root, progress=progress)
    project.home.joinpath("run").mkdir(parents=True, exist_ok=True)
    log_path = project.home / "run" / f"local-model-{provider.local_name}.log"
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            command(project, provider, parent=os.getpid()), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield _wait(project.home, provider, child, log_path)
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_for_another(home: Path, provider: ResolvedProvider) -> Served | None:
    """The server that somebody is starting just now: two at once would only slow each other down."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        stated = _stated(state_file(home, provider))
        if stated is None or stated.weights != (provider.weights or weights.DEFAULT):
            return None
        if stated.base_url:
            return running(home, provider)
        time.sleep(0.1)
    return None


def check_installed() -> None:
    """Raises :class:`MissingExtra` when xllamacpp is not there, without loading it."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtra("a provider of kind `local`", "local")


def _wait(home: Path, provider: ResolvedProvider, child: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        served = running(home, provider)
        if served is not None:
            return served.base_url
        if child.poll() is not None:
            said = log.read_bytes()[-400:].decode("utf-8", "replace").strip()
            raise Unavailable(f"the local model server ended with exit code {child.returncode}: {said}")
        time.sleep(0.1)
    raise Unavailable(
        f"the local model server of {provider.name!r} was not ready within {START_SECONDS:g} s", remedy=f"see {log}"
    )


def _healthy(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/health", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serve(name: str, root: Path, state: Path, parent: int) -> None:
    """The child's main: load the weights, listen on a free port, say where, and stay until the parent ends."""
    die_with_parent(parent=parent)
    check_installed()
    state.parent.mkdir(parents=True, exist_ok=True)
    starting = Served(pid=os.getpid(), base_url="", weights=name)
    _claim(state, starting)
    path = weights.find(name, root=root, progress=_log_progress())
    asyncio.run(_answer(_started(path, name), state, name))


def _started(path: Path, name: str) -> list[Any]:
    """The copies, loaded: on loopback ports of their own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {name}  # else the file's path is what it says it is
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.n_gpu_layers = 0
    params.offline = True
    params.ui = False
    params.verbosity = 1
    if COPIES > 1:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return [xllamacpp.Server(params) for _ in range(COPIES)]


async def _answer(copies: list[Any], state: Path, name: str) -> None:
    """Say where the model is, and stay."""
    from lockgate.gateway.local_copies import in_front_of  # only the child serves HTTP

    addresses = [copy.listening_address for copy in copies]
    async with in_front_of(addresses) if len(addresses) > 1 else nullcontext(addresses[0]) as address:
        served = Served(pid=os.getpid(), base_url=f"{address}/v1", weights=name)
        while True:
            await asyncio.to_thread(_claim, state, served)  # which may ask another server how it is
            await asyncio.sleep(CLAIM_SECONDS)


def _claim(state: Path, served: Served) -> None:
    """Say where this server is, unless another one that lives has said so: then be there when that one ends."""
    stated = _stated(state)
    if stated == served:
        return
    if stated is not None and stated.pid != served.pid and (not stated.base_url or _healthy(stated.base_url)):
        return
    temporary = state.with_name(f".{state.name}.{served.pid}")
    temporary.write_bytes(msgspec.json.encode(served))
    os.replace(temporary, state)


def _log_progress() -> weights.Progress:
    shown = -1

    def progress(what: str, done: int, total: int) -> None:
        nonlocal shown
        tenth = done * 10 // total
        if tenth != shown:
            shown = tenth
            print(f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", flush=True)  # noqa: T201 - a child's log

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(prog="lockgate.gateway.local_model")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    try:
        serve(given.weights, given.root, given.state, given.parent)
    except LockgateError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
