"""How many holds a second the hold table takes, beside a bare lock and write of a mapped file.

A hold and its settlement, on one account and on the six of a model call of a run, in one process and in several at
once. The bare write is the least that could be shared between processes at all: take the lock, change eight bytes,
give it back, twice. The ratio says what the records cost on top.

Usage: python benchmarks/hold_table.py
"""

from __future__ import annotations

import fcntl
import mmap
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account

SECONDS, RUNS, PROCESSES = 0.5, 3, 4
NOW = 1_795_000_000.0
CAP = 10**18

SIX = [
    Account(name="run:r1", window="", cap=CAP),
    Account(name="run:r1", window="", cap=CAP, unit="tokens"),
    Account(name="run:r1", window="", cap=CAP, unit="calls"),
    Account(name="agent:prod:triage", window="2026-11-18", cap=CAP),
    Account(name="agent:prod:triage", window="2026-11-18", cap=CAP, unit="tokens"),
    Account(name="tenant:prod:acme", window="2026-11-18", cap=None),
]


def bare(path: Path) -> Callable[[], None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(handle, 4096)
    words = memoryview(mmap.mmap(os.open(path, os.O_RDWR), 4096)).cast("q")

    def pair() -> None:
        for _ in range(2):
            fcntl.flock(handle, fcntl.LOCK_EX)
            words[0] += 1
            fcntl.flock(handle, fcntl.LOCK_UN)

    return pair


def held(path: Path, accounts: list[Account]) -> Callable[[], None]:
    table = HoldTable(path)

    def pair() -> None:
        hold = table.hold(accounts, 1000, tokens=10, now=NOW)
        table.mark_sent(hold)
        table.settle(hold, 500, tokens=5)

    return pair


def work(kind: str, path: Path, start: float, done: multiprocessing.Queue[int]) -> None:
    pair = bare(path) if kind == "bare" else held(path, SIX[:1] if kind == "one" else SIX)
    pair()
    while time.monotonic() < start:
        time.sleep(0.001)
    count, until = 0, start + SECONDS
    while time.monotonic() < until:
        for _ in range(20):
            pair()
        count += 20
    done.put(count)


def pairs_per_second(kind: str, processes: int, folder: Path) -> float:
    context = multiprocessing.get_context("spawn")
    path = folder / f"{kind}.{processes}"
    rates = []
    for _ in range(RUNS):
        done: multiprocessing.Queue[int] = context.Queue()
        start = time.monotonic() + 1.0
        workers = [context.Process(target=work, args=(kind, path, start, done)) for _ in range(processes)]
        for worker in workers:
            worker.start()
        rates.append(sum(done.get(timeout=60) for _ in workers) / SECONDS)
        for worker in workers:
            worker.join(60)
    return statistics.median(rates)


def main() -> None:
    kinds = {
        "bare": "bare lock and write, twice",
        "one": "hold + settle, 1 account",
        "six": "hold + settle, 6 accounts",
    }
    print(f"{os.cpu_count()} cores; pairs a second, all processes together (median of {RUNS})\n")
    print(f"{'':28}{'1 process':>12}{'µs':>8}{'ratio':>8}{f'{PROCESSES} processes':>14}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        base: tuple[float, float] | None = None
        for kind, label in kinds.items():
            alone = pairs_per_second(kind, 1, Path(folder))
            together = pairs_per_second(kind, PROCESSES, Path(folder))
            base = base or (alone, together)
            print(
                f"{label:28}{alone:>12,.0f}{1e6 / alone:>8.1f}{alone / base[0]:>8.2f}"
                f"{together:>14,.0f}{together / base[1]:>8.2f}"
            )


if __name__ == "__main__":
    main()
