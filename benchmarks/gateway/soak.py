"""A million requests: is a worker's memory bounded and flat, and what does a second worker cost?

    python benchmarks/gateway/soak.py [--requests 1000000] [--workers 1] [--connections 32] [--every 20]
    python benchmarks/gateway/soak.py --two            # CPU time a request with one worker and with two
    python benchmarks/gateway/soak.py --hostile        # 300 MB bodies, stalled uploads, an endless stream

The memory (resident set) of each worker is printed as the requests go. It is taken for flat when the median of the last
quarter is at most 3 % above that of the second; the first quarter fills caches and pools.
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
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import rig
import run
from yarl import URL

LIMIT_MB = 120.0
FLAT = 1.03
NEAR = 1.10
CLIENTS = (8, 16, 32)
BODY_MB = 300
BIG_BODIES = 8
STALLED = 200


def soak(requests: int, workers: int, connections: int, every: float) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with rig.upstream(folder) as target, rig.gateway(folder, target, workers=workers) as gateway:
            headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
            payload = rig.body("stub/stub")
            rig.wait_for(gateway.url, payload, headers)
            done, seen, began = 0, [], time.monotonic()
            while done < requests:
                done += rig.load(gateway.url, payload, headers, every, folder, connections).done
                now = [rig.rss_mb(pid) for pid in gateway.pids]
                seen.append(now)
                shown = "  ".join(f"{one:6.1f}" for one in now)
                print(f"{time.monotonic() - began:7.0f} s {done:10,d} requests   MB: {shown}", flush=True)
            spent = sum(map(rig.cpu_seconds, gateway.pids))
    print(f"{spent / done * 1e6:.0f} µs CPU a request")
    return all(_bounded(index, [now[index] for now in seen]) for index in range(workers))


def _bounded(worker: int, seen: list[float]) -> bool:
    quarter = max(1, len(seen) // 4)
    before, last = statistics.median(seen[quarter : 2 * quarter] or seen), statistics.median(seen[-quarter:])
    good = max(seen) <= LIMIT_MB and last <= before * FLAT
    print(
        f"worker {worker}: at most {max(seen):.1f} MB (goal: {LIMIT_MB:g}), from {before:.1f} to {last:.1f} MB"
        f" ({last / before - 1:+.1%}): {'flat' if good else 'NOT as it should be'}"
    )
    return good


def one_and_two(seconds: float, rounds: int) -> bool:
    """CPU time a request of all workers together, when there is one and when there are two: each with as many clients,
    and the same clients shared between two. What a request takes depends on how many come at once: they share a round
    of the event loop.

    A pass-through that shares nothing is measured alike: by how much it takes more is the machine's doing, which has as
    many cores for two workers, the load and the upstream as for one.
    """
    used: dict[tuple[str, int, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        target = stack.enter_context(rig.upstream(folder))
        asked: dict[tuple[str, int], tuple[rig.Gateway, str]] = {}
        for workers in (1, 2):
            place = folder / str(workers)
            place.mkdir()
            asked["gateway", workers] = stack.enter_context(rig.gateway(place, target, workers=workers)), "stub/stub"
            asked["pass-through", workers] = stack.enter_context(_seam(target, workers)), "stub"
        for gateway, model in asked.values():
            rig.wait_for(gateway.url, rig.body(model), _headers(gateway))
            rig.load(gateway.url, rig.body(model), _headers(gateway), 2, folder)
        for _ in range(rounds):
            for clients in CLIENTS:
                for (what, workers), (gateway, model) in asked.items():
                    before = sum(map(rig.cpu_seconds, gateway.pids))
                    asking = rig.body(model), _headers(gateway), seconds, folder, clients * workers
                    done = rig.load(gateway.url, *asking).done
                    time.sleep(0.3)
                    spent = sum(map(rig.cpu_seconds, gateway.pids)) - before
                    used.setdefault((what, workers, clients), []).append(spent / done * 1e6)
    cost = {which: statistics.median(measured) for which, measured in used.items()}
    for clients in CLIENTS:
        for what in ("gateway", "pass-through"):
            one, two, alone = cost[what, 1, clients], cost[what, 2, clients], cost.get((what, 1, 2 * clients))
            said = f"one {one:.0f} µs CPU a request, two {two:.0f} µs: {two / one:.2f}×"
            said += "" if alone is None else f", and {two / alone:.2f}× one that has the clients of both"
            print(f"{clients} clients a worker, {what}: {said}")
    print(f"goal of the gateway: at most {NEAR:g}× with as many clients a worker")
    return all(cost["gateway", 2, clients] <= cost["gateway", 1, clients] * NEAR for clients in CLIENTS)


@contextlib.contextmanager
def _seam(target: str, workers: int) -> Iterator[rig.Gateway]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(rig.free_socket())
        command = [sys.executable, str(run.HERE), "--serve-seam", str(listener.fileno()), "--target", target]
        pids = [
            stack.enter_context(rig.process(command, (listener.fileno(),), environment=rig.released()))
            for _ in range(workers)
        ]
        yield rig.Gateway(f"{rig.url_of(listener)}/v1/chat/completions", "none", pids)


def _headers(gateway: rig.Gateway) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}


# --- hostile clients and upstreams ------------------------------------------------------------------------------


async def hostile() -> bool:
    with tempfile.TemporaryDirectory() as name:
        async with _endless() as target:
            with rig.gateway(Path(name), target, timeout=10) as gateway:
                url = URL(gateway.url)
                await asyncio.to_thread(rig.wait_for, str(url.with_path("/ready")), "", {})
                return await _trouble(url, gateway.key, gateway.pids[0])


async def _trouble(url: URL, key: str, pid: int) -> bool:
    most: list[tuple[str, float]] = []

    async def watched(what: str, work: asyncio.Future[str]) -> None:
        peak = before = rig.rss_mb(pid)
        while not work.done():
            peak = max(peak, rig.rss_mb(pid))
            await asyncio.sleep(0.02)
        print(f"{what}: {before:.0f} MB before, at most {peak:.0f} MB; {work.result()}", flush=True)
        most.append((what, peak))

    head = f"POST {url.path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
    head += "content-type: application/json\r\n"
    big = [_upload(url, head + f"content-length: {BODY_MB << 20}\r\n\r\n", BODY_MB, chunked=False)
           for _ in range(BIG_BODIES)]  # fmt: skip
    await watched(f"{BIG_BODIES} bodies of {BODY_MB} MB, declared", asyncio.ensure_future(_said(big)))
    big = [_upload(url, head + "transfer-encoding: chunked\r\n\r\n", BODY_MB, chunked=True) for _ in range(BIG_BODIES)]
    await watched(f"{BIG_BODIES} bodies of {BODY_MB} MB, chunked", asyncio.ensure_future(_said(big)))
    stalled = [_stall(url, head + "content-length: 1000000\r\n\r\n") for _ in range(STALLED)]
    await watched(f"{STALLED} uploads that stall for 10 s", asyncio.ensure_future(_said(stalled)))
    plain = json.dumps({"model": "stub/stub", "messages": rig.MESSAGES, "max_tokens": 256, "stream": True})
    held = rig.body("stub/stub").replace('"temperature"', '"stream": true, "temperature"')
    for what, asked, pause in (
        ("an endless stream, read", plain, 0.0),
        ("an endless stream, not read for 15 s", plain, 15.0),
        ("an endless stream that a guard holds to its end", held, 0.0),
        ("the same again", held, 0.0),
        ("the same again", held, 0.0),
    ):
        request = (head + f"content-length: {len(asked)}\r\n\r\n{asked}").encode()
        await watched(what, asyncio.ensure_future(_said([_read(url, request, pause=pause)])))
    await asyncio.sleep(2)
    print(f"afterwards: {rig.rss_mb(pid):.0f} MB")
    return True


async def _said(calls: list[asyncio.Future[str]] | list) -> str:  # type: ignore[type-arg]
    answers = await asyncio.gather(*calls)
    return ", ".join(f"{answers.count(one)} × {one}" for one in sorted(set(answers)))


async def _upload(url: URL, head: str, megabytes: int, *, chunked: bool) -> str:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    piece = b" " * (1 << 20)
    with contextlib.suppress(ConnectionError):
        writer.write(head.encode())
        for _ in range(megabytes):
            writer.write(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
            await writer.drain()
    return await _status(reader, writer)


async def _stall(url: URL, head: str) -> str:
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head.encode() + b'{"model":')
    await asyncio.sleep(10)
    writer.close()
    return "left"


async def _read(url: URL, asked: bytes, *, pause: float) -> str:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(asked)
    await asyncio.sleep(pause)
    taken = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(60):
            while data := await reader.read(1 << 20):
                taken += len(data)
    writer.close()
    return f"{taken >> 20} MB came, then it was ended"


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    line = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(20):
            line = await reader.readline()
    writer.close()
    return line.decode("latin-1").strip() or "closed"


@contextlib.asynccontextmanager
async def _endless() -> AsyncIterator[str]:
    """A model whose stream has no end."""
    event = b'data: {"id":"c","model":"stub","choices":[{"index":0,"delta":{"content":"' + b"x" * 4000 + b'"}}]}\n\n'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=rig.CONNECTIONS)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two looks at the memory")
    parser.add_argument("--two", action="store_true", help="CPU time a request with one worker and with two")
    parser.add_argument("--hostile", action="store_true", help="clients and upstreams that want too much memory")
    options = parser.parse_args()
    if options.two:
        good = one_and_two(3.0, 5)
    elif options.hostile:
        good = asyncio.run(hostile())
    else:
        good = soak(options.requests, options.workers, options.connections, options.every)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
