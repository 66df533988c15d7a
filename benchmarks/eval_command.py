"""`lockgate eval` as a whole process: start to the first model call, and 2,000 cases at 100 ms and concurrency 100.

    python benchmarks/eval_command.py [--cases 2000] [--latency 0.1] [--concurrency 100] [--runs 3]

A fake model answers over HTTP after the latency; every case is asked, scored and stored. Limits: the first call within
0.5 s; the whole within 1.15 times the ideal, cases × latency / concurrency. Prints where the rest goes: the start, the
calls, and what comes after the last one (statistics, report, signature). `benchmarks/eval_runner.py` has the runner
alone. The yardstick is an empty `python -c pass`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from installed import as_installed

from lockgate.testing import FakeModelServer, Reply

LOCKGATE = str(Path(sys.executable).with_name("lockgate"))
FIRST_CALL, WHOLE = 0.5, 1.15


class Took(NamedTuple):
    """Seconds of one run: to the first call, from there to the last answer, and from there to the end."""

    start: float
    calls: float
    tail: float


def write_project(root: Path, model: str, cases: int, concurrency: int) -> None:
    for name in ("agents", "prompts", "evals"):
        (root / name).mkdir(parents=True)
    (root / "lockgate.yaml").write_text(
        "project: bench\nowner: bench\nprices: prices.yaml\n"
        f"providers: {{fake: {{kind: openai, base_url: '{model}'}}}}\n"
    )
    (root / "prices.yaml").write_text("fake: {fake-model: {input: 1.0, output: 2.0}}\n")
    (root / "prompts/triage.md").write_text("You find the order in a customer's message.\n")
    (root / "agents/triage.v1.yaml").write_text(
        "agent:\n  name: triage\n  version: 1\n"
        "  model: {provider: fake, name: fake-model, max_tokens: 64}\n"
        "  system_prompt: prompts/triage.md\n"
        f"  evals: {{dataset: evals/golden.jsonl, trials: 1, whole: true, concurrency: {concurrency}, thresholds:"
        " {field_match: {fields: [order_id, item], min: 0.9}, cost_usd: {max: 0.05}}}\n"
    )
    with (root / "evals/golden.jsonl").open("w") as file:
        for number in range(cases):
            case = {
                "id": f"case-{number}",
                "input": f"My kettle arrived broken, order {number}. Please refund. " + "Thank you. " * 20,
                "expected_output": {"order_id": "A-7", "item": "kettle"},
                "tags": [f"kind-{number % 5}"],
            }
            file.write(json.dumps(case) + "\n")


def measure(root: Path, calls: list[float]) -> Took:
    calls.clear()
    began = time.perf_counter()
    done = subprocess.run(
        [LOCKGATE, "eval", "--fresh"], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    ended = time.perf_counter()
    if done.returncode != 0:
        raise SystemExit(f"it did not pass: {done.stdout}{done.stderr}")
    return Took(calls[0] - began, calls[-1] - calls[0], ended - calls[-1])


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, timeout=60, check=True)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    calls: list[float] = []

    def respond(_: object) -> Reply:
        calls.append(time.perf_counter())
        return Reply(text='{"order_id": "A-7", "item": "kettle"}', latency=options.latency)

    with as_installed(), tempfile.TemporaryDirectory() as folder, FakeModelServer() as model:
        model.respond = respond
        root = Path(folder)
        write_project(root, model.base_url, options.cases, options.concurrency)
        subprocess.run([LOCKGATE, "lock"], cwd=root, capture_output=True, timeout=60, check=True)
        measure(root, calls)  # compiles
        found = [measure(root, calls) for _ in range(options.runs)]
        assert len(calls) == options.cases
        empty = [seconds(sys.executable, "-c", "pass") for _ in range(5)]
    first = statistics.median(one.start for one in found)
    wholes = [sum(one) for one in found]
    ideal = options.cases * options.latency / options.concurrency
    whole = statistics.median(wholes) / ideal
    print(
        f"start to first call  {first:.2f} s, worst {max(one.start for one in found):.2f} s   (limit {FIRST_CALL:g} s)"
        f"   {first / FIRST_CALL:.2f}x the limit, {first / statistics.median(empty):.0f}x an empty Python"
    )
    calling, tail = (statistics.median(one[part] for one in found) for part in (1, 2))
    print(
        f"whole command        {statistics.median(wholes):.2f} s; ideal {ideal:.2f} s: {whole:.2f}x   (limit {WHOLE}x)"
    )
    print(f"  of it: to the first call {first:.2f} s, to the last one {calling:.2f} s, from there {tail:.2f} s")
    return 0 if first <= FIRST_CALL and whole <= WHOLE else 1


if __name__ == "__main__":
    sys.exit(main())
