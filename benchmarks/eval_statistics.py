"""How often the eval gate is wrong over simulated gates with clusters, looking once and buying trials.

    python benchmarks/eval_statistics.py [--gates 1000] [--seed 1]

Golden sets of 60 cases in 40 clusters; cases differ in difficulty and a cluster shares the version's effect on it.
Truth is the mean over the population of clusters. Bought trials: 3, then 6, then 12 a case, stopped at a verdict.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np

from lockgate.evals.sequential import buying
from lockgate.evals.statistics import by_cluster, estimate, p_below_zero

CASES, CLUSTERS, MARGIN = 60, 40, 0.08
CLUSTER = [str(case % CLUSTERS) for case in range(CASES)]


class Tally(NamedTuple):
    blocked: float
    passed: float
    covered: float
    trials: float


def gates(rng: np.random.Generator, count: int, loss: float, effect: float, looks: list[tuple[int, float]]) -> Tally:
    """``loss`` of the candidate on average; ``effect``: its standard deviation between clusters."""
    blocked = passed = covered = trials = 0
    for _ in range(count):
        chance = rng.uniform(0.35, 0.75, CASES)
        shift = rng.normal(0, effect, CLUSTERS)[np.arange(CASES) % CLUSTERS] - loss
        most = looks[-1][0]
        before = rng.random((CASES, most)) < chance[:, None]
        after = rng.random((CASES, most)) < (chance + shift)[:, None]
        right = True
        for number, level in looks:
            difference = after[:, :number].mean(axis=1) - before[:, :number].mean(axis=1)
            room = by_cluster(difference + MARGIN, CLUSTER)
            bounds = estimate(room, (MARGIN - 1, MARGIN + 1), alpha=level)
            right = right and bounds.low <= MARGIN - loss <= bounds.high
            fail = p_below_zero(room, (MARGIN - 1, MARGIN + 1)) <= level
            if fail or bounds.low >= 0:
                break
        blocked += fail
        passed += bounds.low >= 0
        covered += right
        trials += 2 * CASES * number
    return Tally(blocked / count, passed / count, covered / count, trials / count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    began = time.perf_counter()
    designs = {"3 trials": [(3, 0.05)], "12 trials": [(12, 0.05)], "3, 6, 12 as needed": buying(3, 12, 0.05)}
    truths = [("equal", 0.0), ("worse by the margin", MARGIN), ("worse by .20", 0.20)]
    print(f"{options.gates} gates, {CASES} cases in {CLUSTERS} clusters, margin {MARGIN}; each bound may err with 5 %")
    print(f"{'':<22}{'':<21}{'fail':>8}{'pass':>8}{'covered':>10}{'calls':>8}{'of 12':>8}")
    for truth, loss in truths:
        full = 0.0
        for name, looks in designs.items():
            found = gates(rng, options.gates, loss, 0.05, looks)
            full = found.trials if name == "12 trials" else full
            ratio = f"{found.trials / full:.2f}" if full else ""
            print(
                f"{truth:<22}{name:<21}{found.blocked:>8.1%}{found.passed:>8.1%}{found.covered:>10.1%}"
                f"{found.trials:>8.0f}{ratio:>8}"
            )
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
