"""How long until a command says something: `lockgate --help` beside an empty Python, and each command's help.

Limits: `--help` within 7 times an empty `python -c pass`; no command over 0.5 s.

Usage: python benchmarks/cli_startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from installed import as_installed

RUNS = 7


def median_seconds(*command: str) -> float:
    """Median wall time of a whole process, after one warm-up."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    from lockgate.cli import COMMANDS

    with as_installed():
        measure(list(COMMANDS))


def measure(commands: list[str]) -> None:
    lockgate = str(Path(sys.executable).with_name("lockgate"))
    empty = median_seconds(sys.executable, "-c", "pass")
    top = median_seconds(lockgate, "--help")
    print(f"python -c pass      {empty * 1000:6.0f} ms")
    print(f"lockgate --help     {top * 1000:6.0f} ms   {top / empty:.1f}x (limit 7x)")
    slowest = max((median_seconds(lockgate, name, "--help"), name) for name in commands)
    print(f"slowest command     {slowest[0] * 1000:6.0f} ms   {slowest[1]} --help (limit 500 ms)")


if __name__ == "__main__":
    main()
