"""A large golden set: memory of a run with everything stored, and how long `compare` takes on two such runs.

    python benchmarks/eval_scale.py [--cases 100000] [--trials 3] [--part run|compare] [--profile]

The run: ``--cases`` cases once each through the service of `lockgate eval`, from a JSONL file into SQLite, with a
subject that answers at once; memory is the process's own peak. Compare: two stored runs of cases × trials, by their
ids, from opening the database to the finished scorecard. Each part runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

MOST_MB, MOST_SECONDS = 300, 5.0
THRESHOLDS = {"field_match": {"min": 0.5, "margin": 0.05}, "cost_usd": {"max": 0.05}}


def golden_file(path: Path, count: int) -> None:
    with path.open("w") as file:
        for number in range(count):
            case = {
                "id": f"case-{number}",
                "input": f"My {number % 7} arrived broken, order {number}. Please refund. " + "Thank you. " * 20,
                "expected_output": {"order_id": str(number), "item": str(number % 7)},
                "tags": [f"kind-{number % 5}"],
                "cluster": f"customer-{number // 3}",
            }
            file.write(json.dumps(case) + "\n")


def run(folder: Path, count: int) -> None:
    from lockgate.clock import system
    from lockgate.evals.golden import open_cases
    from lockgate.evals.model import Case, Subject
    from lockgate.evals.rubric import parse_rubric
    from lockgate.evals.service import Contender, Evals, GoldenSet
    from lockgate.results import RunResult, Usage
    from lockgate.storage.engine import open_database

    @asynccontextmanager
    async def subject() -> AsyncIterator[Subject]:
        async def answer(case: Case, trial: int) -> RunResult:
            await asyncio.sleep(0)
            usage = Usage(input_tokens=300, output_tokens=40)
            return RunResult(
                status="completed", output=dict(case.expected_output), usage=usage, cost_nano=12_000, model_calls=1
            )

        yield answer

    began, cpu = time.perf_counter(), time.process_time()
    golden = GoldenSet("golden.jsonl", open_cases(folder / "golden.jsonl", shown_as="golden.jsonl"))
    loaded = time.perf_counter() - began
    rubric = parse_rubric({"thresholds": THRESHOLDS, "concurrency": 100, "whole": True}, folder)
    evals = Evals(open_database(folder / "control.db", "control"), system)
    contender = Contender("agent", "agent@1", "sha256:b", "sha256:e", subject)
    card = asyncio.run(evals.evaluate(contender, rubric, golden, root=folder, environment="prod"))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    assert (card.verdict, card.cases) == ("pass", count)
    met = "" if memory <= MOST_MB else "  missed"
    print(f"run: {count} cases, {took:.1f} s (reading them {loaded:.1f} s), CPU {1000 * cpu / count:.2f} ms a trial")
    print(f"  peak memory {memory:.0f} MB (limit {MOST_MB} MB){met}")


def stored(folder: Path, count: int, trials: int) -> None:
    """Two runs as `lockgate eval` keeps them: scored at random, a third of a percent worse the second time."""
    import hashlib

    import msgspec
    import numpy as np

    from lockgate.evals import store
    from lockgate.evals.gate import decide
    from lockgate.evals.grid import SCORED, Grid
    from lockgate.evals.model import Case, Scorecard
    from lockgate.evals.rubric import parse_rubric
    from lockgate.evals.tables import CaseTable, pack
    from lockgate.storage.engine import open_database

    control = open_database(folder / "control.db", "control")
    rubric = parse_rubric({"thresholds": THRESHOLDS}, folder)
    cases = [
        Case(id=f"case-{n}", input=None, tags=[f"kind-{n % 5}"], cluster=f"customer-{n // 3}") for n in range(count)
    ]
    keys = [hashlib.sha256(case.id.encode()).digest() for case in cases]
    random = np.random.default_rng(1)
    easy = random.beta(8, 1, count)[:, None]
    for name, loss in (("a", 0.0), ("b", 0.003)):
        scores = (random.random((count, trials)) < easy - loss).astype(float)
        usd = random.gamma(4, 0.001, (count, trials))
        status = np.full(scores.shape, SCORED, dtype=np.uint8)
        values = {"field_match": scores, "cost_usd": usd, "error_rate": np.zeros(scores.shape)}
        grids = {metric: Grid(value, status) for metric, value in values.items()}
        found = decide(rubric, cases, grids, None)
        row = {
            "id": f"eval_{name}",
            "agent": "agent",
            "behaviour_digest": f"sha256:{name}",
            "effective_digest": f"sha256:{name}",
            "dataset_digest": "sha256:d",
            "rubric_digest": rubric.digest,
            "started_at": 1.0,
        }
        store.start_evaluation(control, row)
        card = Scorecard(
            **row,
            label=f"agent@{name}",
            environment="prod",
            dataset="golden.jsonl",
            cases=count,
            trials=trials,
            verdict=found.verdict,
            reasons=[],
            metrics=found.metrics,
            cost_nano=int(usd.sum() * 1e9),
            scorer_digests=dict.fromkeys(values, "same"),
        )
        table = pack(CaseTable(keys, cases, grids, usd, usd * 100))
        store.finish_evaluation(control, msgspec.structs.replace(card), ended_at=2.0, table=table)


def compare(folder: Path, count: int, trials: int, profile: bool) -> None:
    stored(folder, count, trials)
    watch = cProfile.Profile()
    began = time.perf_counter()
    if profile:
        watch.enable()
    from lockgate.clock import system
    from lockgate.evals.service import Evals
    from lockgate.storage.engine import open_database

    evals = Evals(open_database(folder / "control.db", "control"), system)
    card = evals.compare_runs("eval_a", "eval_b")
    took = time.perf_counter() - began
    watch.disable()
    metric = card.metric("field_match")
    assert metric is not None
    assert metric.difference_interval is not None
    assert metric.difference_interval.low < -0.003 < metric.difference_interval.high
    met = "" if took <= MOST_SECONDS else "  missed"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    print(f"compare: two runs of {count} cases × {trials} trials in {took:.2f} s (limit {MOST_SECONDS:g} s){met}")
    print(f"  {len(card.broken)} newly broken, {len(card.fixed)} newly fixed; peak memory {memory:.0f} MB")
    if profile:
        pstats.Stats(watch).sort_stats("tottime").print_stats(20)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--part", choices=["run", "compare"])
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "run":
            golden_file(Path(folder) / "golden.jsonl", options.cases)
            run(Path(folder), options.cases)
        elif options.part == "compare":
            compare(Path(folder), options.cases, options.trials, options.profile)
        else:
            for part in ("run", "compare"):
                subprocess.run([sys.executable, __file__, *sys.argv[1:], "--part", part], check=True, timeout=900)


if __name__ == "__main__":
    main()
