"""How often the eval gate is wrong, and how many model calls a verdict takes: sequential against fixed n.

    python benchmarks/eval_statistics.py [--gates 1000] [--seed 1] [--clusters 160]

Simulated gates against a baseline with a margin. Cases stand two to three in a cluster; they differ in difficulty, and
a cluster shares the version's effect on it. Truth is the mean over the population of clusters. Fixed n runs every trial
of both versions and looks once; sequential follows :func:`lockgate.evals.sequential.design` and stops when settled.

A row's "fail" is a false block where the versions are equal or worse by exactly the margin; "pass" is a false pass in
the latter. "rare": equal but for one cluster in twenty, where the candidate always fails. "covered": the shown 95 %
interval holds the true difference. The last part asks how often an early word on a threshold is not the whole set's.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np

from lockgate.evals.gate import decide
from lockgate.evals.grid import SCORED, Grid
from lockgate.evals.model import Case, Metric, Rubric
from lockgate.evals.sequential import ALPHA, Stage, design, in_order
from lockgate.evals.statistics import Floats, by_cluster, estimate, p_below_zero

CASES_A_CLUSTER = 2.5


class Truth(NamedTuple):
    name: str
    loss: float
    rare: float = 0.0
    false_fail: bool = False
    false_pass: bool = False


class Tally(NamedTuple):
    fail: float
    passed: float
    covered: float
    calls: float


class World(NamedTuple):
    """Trials of both versions by case, in the order of the clusters."""

    cluster: np.ndarray
    before: Floats
    after: Floats
    loss: float


def world(rng: np.random.Generator, clusters: int, trials: int, truth: Truth, effect: float) -> World:
    sizes = rng.integers(2, 4, clusters)
    cluster = np.repeat(np.arange(clusters), sizes)
    chance = rng.uniform(0.5, 0.85, clusters)[cluster]
    shift = rng.normal(0, effect, clusters) - truth.loss
    after = np.clip(chance + shift[cluster], 0, 1)
    after[(rng.random(clusters) < truth.rare)[cluster]] = 0.0
    shape = (len(cluster), trials)
    loss = truth.loss + truth.rare * ((0.5 + 0.85) / 2 - truth.loss)
    return World(cluster, rng.random(shape) < chance[:, None], rng.random(shape) < after[:, None], loss)


def gates(
    rng: np.random.Generator, count: int, clusters: int, trials: int, truth: Truth, margin: float, stages: list[Stage]
) -> Tally:
    fail = passed = covered = calls = 0
    for _ in range(count):
        one = world(rng, clusters, stages[-1].trials, truth, 0.05)
        for stage in stages:
            rows = one.cluster < max(1, round(stage.share * clusters))
            moved = one.after[rows, : stage.trials].mean(axis=1) - one.before[rows, : stage.trials].mean(axis=1)
            room = by_cluster(moved + margin, one.cluster[rows])
            bounds = (margin - 1, margin + 1)
            bad = good = False
            if moved.mean() + margin < 0:
                bad = p_below_zero(room, bounds) <= stage.level.bound
            else:
                good = estimate(room, bounds, alpha=stage.level.holds).low >= 0
            if bad or good:
                break
        shown = estimate(by_cluster(moved, one.cluster[rows]), (-1, 1), alpha=stage.level.shown)
        fail += bad
        passed += good
        covered += shown.low <= -one.loss <= shown.high
        calls += 2 * int(rows.sum()) * stage.trials
    return Tally(fail / count, passed / count, covered / count, calls / count)


def claims(rng: np.random.Generator, count: int, cases: int, trials: int) -> tuple[float, float, float]:
    """A mean near its threshold of .8: how often the gate speaks early, how often the whole set says otherwise, and the
    share of the trials that were run."""
    metric = Metric(name="score", scorer="exact_match", minimum=0.8)
    rubric = Rubric(metrics=(metric,))
    known = [Case(id=f"c{number}", input=None) for number in range(cases)]
    place = np.array(in_order([f"i{case.id}" for case in known]))
    stages = design(cases, trials, trials)
    early = wrong = ran = 0.0
    for _ in range(count):
        rate = rng.uniform(0.7, 0.9)
        chance = rng.beta(4 * rate, 4 * (1 - rate), cases)[:, None]
        values = (rng.random((cases, trials)) < chance).astype(float)
        whole = "pass" if values.mean() >= 0.8 else "fail"
        for stage in stages:
            rows = np.flatnonzero(place < round(stage.share * cases))
            some = values[rows, : stage.trials]
            grid = Grid(some, np.full(some.shape, SCORED, dtype=np.uint8))
            found = decide(
                rubric, [known[row] for row in rows], {"score": grid}, None, at=stage.level, advise=False
            ).verdict
            if found != "inconclusive":
                break
        early += stage.early
        wrong += found != whole
        ran += some.size / values.size
    return early / count, wrong / count, ran / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clusters", type=int, default=160)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--margin", type=float, default=0.08)
    options = parser.parse_args()
    began = time.perf_counter()
    clusters, trials, margin = options.clusters, options.trials, options.margin
    designs = {
        "fixed n": [Stage(1.0, trials)],
        "sequential": design(clusters, trials, trials),
    }
    truths = [
        Truth("equal", 0.0, false_fail=True),
        Truth("better by .05", -0.05, false_fail=True),
        Truth("worse by the margin", margin, false_fail=True, false_pass=True),
        Truth("worse by .20", 0.20, false_pass=True),
        Truth("worse by .40", 0.40, false_pass=True),
        Truth("rare: 1 in 20 broken", 0.0, rare=0.05, false_fail=True),
    ]
    print(
        f"{options.gates} gates each: {clusters} clusters of 2 to 3 cases, {trials} trials, margin {margin}; "
        f"a verdict may err with {ALPHA:.0%}, intervals are to cover 95 %"
    )
    print(f"{'':<22}{'':<12}{'fail':>8}{'pass':>8}{'covered':>10}{'calls':>8}{'of fixed':>10}")
    for truth in truths:
        fixed = 0.0
        for name, stages in designs.items():
            rng = np.random.default_rng(options.seed)
            found = gates(rng, options.gates, clusters, trials, truth, margin, stages)
            fixed = fixed or found.calls
            wrong = (found.fail if truth.false_fail else 0.0) + (found.passed if truth.false_pass else 0.0)
            limit = ALPHA * (2 if truth.false_fail and truth.false_pass else 1)
            met = "" if wrong <= limit and found.covered >= 0.95 else "  missed"
            print(
                f"{truth.name:<22}{name:<12}{found.fail:>8.1%}{found.passed:>8.1%}{found.covered:>10.1%}"
                f"{found.calls:>8.0f}{found.calls / fixed:>10.2f}{met}"
            )
    for cases in (60, 200):
        early, wrong, ran = claims(np.random.default_rng(options.seed), options.gates // 4, cases, trials)
        met = "" if wrong <= ALPHA else "  missed"
        print(
            f"a threshold of .8, true means .7 to .9, {cases} cases: settled early in {early:.1%} of gates, by "
            f"{ran:.2f} of the trials; the whole set says otherwise in {wrong:.1%}{met}"
        )
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
