"""`lockgate eval` and `lockgate compare` as whole processes.

    python benchmarks/eval_command.py [--cases 2000] [--latency 0.1] [--concurrency 100] [--runs 5] [--compared 100000]

eval: a fake model answers over HTTP after the latency; every case is asked, scored and stored. Limits: the first call
within 0.5 s of the command; from there, within 1.15 times the ideal (cases × latency / concurrency), every result is
stored, the verdict signed and printed, and the process gone. The whole is both limits together.
`benchmarks/eval_runner.py` has the runner alone. compare: two stored evaluations of so many cases × 3 trials (0: not),
within 5 s. Each figure is a median, with its ratio to its limit; the yardstick is an empty `python -c pass`.
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

from eval_scale import MOST_SECONDS, stored
from installed import as_installed

from lockgate.testing import FakeModelServer, Reply

LOCKGATE = str(Path(sys.executable).with_name("lockgate"))
FIRST_CALL, FROM_THERE = 0.5, 1.15


class Took(NamedTuple):
    """Seconds of one run: to the first call, from there until the last one is asked, and from there to the end."""

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


def compared(root: Path, cases: int, runs: int) -> list[float]:
    """Seconds that each comparison of two stored evaluations took."""
    stored(root / ".lockgate", cases, 3)
    command = [LOCKGATE, "compare", "eval_a", "eval_b"]
    found = []
    for _ in range(runs + 1):  # the first one compiles
        began = time.perf_counter()
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
        found.append(time.perf_counter() - began)
        if f"{cases} cases" not in done.stdout:
            raise SystemExit(f"it did not compare: {done.stdout}{done.stderr}")
    return found[1:]


def show(what: str, found: list[float], limit: float) -> bool:
    """Print one figure beside its limit, in seconds; returns whether it keeps it."""
    median = statistics.median(found)
    ratio = f"{median / limit:.2f}x the limit of {limit:.2f} s"
    print(f"{what:31} {median:.2f} s, worst {max(found):.2f} s   {ratio}{'' if median <= limit else '  missed'}")
    return median <= limit


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--compared", type=int, default=100_000)
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
        empty = statistics.median(seconds(sys.executable, "-c", "pass") for _ in range(5))
        comparing = compared(root, options.compared, options.runs) if options.compared else []
    ideal = options.cases * options.latency / options.concurrency
    starts, rest, wholes = (
        [one.start for one in found],
        [one.calls + one.tail for one in found],
        [sum(one) for one in found],
    )
    kept = [
        show("eval: start to first call", starts, FIRST_CALL),
        show("eval: from there to the end", rest, FROM_THERE * ideal),
        show("eval: whole", wholes, FIRST_CALL + FROM_THERE * ideal),
    ]
    if comparing:
        kept.append(show(f"compare: {options.compared} cases x 3", comparing, MOST_SECONDS))
    asked = statistics.median(one.calls for one in found)
    print(
        f"ideal {ideal:.2f} s: from the first call {statistics.median(rest) / ideal:.2f}x (last one asked after "
        f"{asked:.2f} s), whole {statistics.median(wholes) / ideal:.2f}x"
    )
    print(f"an empty Python takes {empty:.3f} s: the start is {statistics.median(starts) / empty:.0f} of them")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
