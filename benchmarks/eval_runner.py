"""The eval runner against the ideal: 2,000 cases at 100 ms and concurrency 100, every result stored.

    python benchmarks/eval_runner.py [--cases 2000] [--latency 0.1] [--concurrency 100] [--profile]

The ideal is cases × latency / concurrency. Prints the ratio to it, CPU a trial and peak memory. The subject is a
coroutine that sleeps, so what is measured is the runner: scoring, bookkeeping and storing.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lockgate.evals.model import Case, Subject
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.runner import run_trials
from lockgate.evals.running.scoring import prepare
from lockgate.evals.scorers.making import make_scorer
from lockgate.evals.store import TrialStore
from lockgate.results import RunResult, Usage
from lockgate.storage.engine import open_database


def cases(count: int) -> list[Case]:
    return [
        Case(
            id=f"case-{number}",
            input=f"My {number % 7} arrived broken, order {number}. Please refund. " + "Thank you. " * 20,
            expected_output={"order_id": str(number), "item": str(number % 7)},
            tags=[f"kind-{number % 5}"],
        )
        for number in range(count)
    ]


async def measure(count: int, latency: float, concurrency: int, folder: Path) -> float:
    @asynccontextmanager
    async def subject() -> AsyncIterator[Subject]:
        async def run(case: Case, trial: int) -> RunResult:
            await asyncio.sleep(latency)
            return RunResult(
                status="completed",
                output=dict(case.expected_output),
                usage=Usage(input_tokens=300, output_tokens=40),
                cost_nano=12_000,
                model_calls=1,
            )

        yield run

    thresholds = {"field_match": {"fields": ["order_id", "item"], "min": 0.9}, "cost_usd": {"max": 0.05}}
    rubric = parse_rubric({"thresholds": thresholds}, folder)
    scorings = prepare(rubric, lambda metric: make_scorer(metric, folder))
    store = TrialStore(open_database(folder / "control.db", "control"), "sha256:" + "0" * 64)
    golden = cases(count)
    began = time.perf_counter()
    outcome = await run_trials(
        subject, golden, 1, scorings, concurrency=concurrency, timeout=30, store=store, progress=lambda _: None
    )
    took = time.perf_counter() - began
    assert outcome.ran == count
    assert len(store.results([case.digest for case in golden[:300]])) == min(300, count)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    ideal = options.cases * options.latency / options.concurrency
    profile = cProfile.Profile() if options.profile else None
    with tempfile.TemporaryDirectory() as folder:
        if profile:
            profile.enable()
        cpu = time.process_time()
        took = asyncio.run(measure(options.cases, options.latency, options.concurrency, Path(folder)))
        cpu = time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    print(f"eval runner, {options.cases} trials: {took:.2f} s; ideal {ideal:.2f} s: {took / ideal:.2f}× (target 1.15×)")
    print(f"  CPU {1000 * cpu / options.cases:.2f} ms a trial (target 0.5), peak memory {memory:.0f} MB")
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
