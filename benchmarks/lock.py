"""How long `lockgate lock` takes on a large project, beside reading and hashing the same files.

100 agents with a prompt and a tool each, in a project of 2,000 prompt files.
Limits: cold 2 s, unchanged 0.3 s, a project of one agent 0.5 s. Files touched in the last two seconds are never
trusted to be unchanged, so the project rests that long before it is measured.

Usage: python benchmarks/lock.py
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AGENTS, PROMPTS, RUNS = 100, 2_000, 3
LOCKGATE = str(Path(sys.executable).with_name("lockgate"))


def write_project(root: Path, agents: int, prompts: int) -> Path:
    for name in ("agents", "prompts", "tools"):
        (root / name).mkdir(parents=True)
    (root / "lockgate.yaml").write_text("project: bench\nowner: bench\n")
    (root / "tools/orders.py").write_text("def read_orders(order_id):\n    return {}\n")
    (root / "tools/read_orders.yaml").write_text(
        "tool:\n  name: read_orders\n  effect: read\n  python: tools/orders.py:read_orders\n"
    )
    for number in range(prompts):
        (root / f"prompts/p{number}.md").write_text(f"You are agent {number}.\n" * 20)
    for number in range(agents):
        (root / f"agents/a{number}.v1.yaml").write_text(
            f"agent:\n  name: a{number}\n  version: 1\n"
            "  model: {provider: openai, name: gpt-4o-mini-2024-07-18, temperature: 0.1}\n"
            f"  system_prompt: prompts/p{number}.md\n  tools: [read_orders]\n"
        )
    return root


def seconds(root: Path, *arguments: str) -> float:
    start = time.perf_counter()
    command = [LOCKGATE, "lock", *arguments]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=120)
    return time.perf_counter() - start


def cold(root: Path) -> float:
    shutil.rmtree(root / ".lockgate", ignore_errors=True)
    (root / "lockgate.lock").unlink(missing_ok=True)
    return seconds(root)


def bare(root: Path) -> float:
    start = time.perf_counter()
    for path in root.rglob("*"):
        if path.is_file() and ".lockgate" not in path.parts:
            hashlib.sha256(path.read_bytes()).hexdigest()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        large = write_project(Path(folder, "large"), AGENTS, PROMPTS)
        small = write_project(Path(folder, "small"), 1, 1)
        time.sleep(2.5)
        reading = statistics.median(bare(large) for _ in range(RUNS))
        rows = [
            ("cold", statistics.median(cold(large) for _ in range(RUNS)), 2.0),
            ("unchanged", statistics.median(seconds(large) for _ in range(RUNS)), 0.3),
            ("--check", statistics.median(seconds(large, "--check") for _ in range(RUNS)), 0.3),
            ("one agent, cold", statistics.median(cold(small) for _ in range(RUNS)), 0.5),
            ("one agent, again", statistics.median(seconds(small) for _ in range(RUNS)), 0.5),
        ]
    print(f"read and hash every file of {AGENTS} agents  {reading * 1000:6.0f} ms")
    for name, took, limit in rows:
        print(f"lock, {name:<20} {took * 1000:6.0f} ms   {took / reading:5.1f}x   (limit {limit * 1000:.0f} ms)")


if __name__ == "__main__":
    main()
