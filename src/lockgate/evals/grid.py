"""One metric on cases × trials. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lockgate.evals.model import Metric

if TYPE_CHECKING:  # else numpy would be imported before the first trial: see lockgate.evals.runner
    import numpy as np
    from numpy.typing import NDArray

    from lockgate.evals.statistics import Floats

MISSING, SCORED, SKIPPED, UNSCORED, ERROR = range(5)
"""What became of one metric on one trial, in :class:`Grid`."""


class Grid(NamedTuple):
    """One metric on cases × trials: values (NaN where there is none) and what became of each."""

    values: Floats
    status: NDArray[np.uint8]


def case_means(metric: Metric, grid: Grid, *, complete: bool = True) -> Floats:
    """Each case's mean over its trials, or what the metric's ``aggregate`` makes of them; NaN where there is none.

    ``complete``: a missing trial counts as the worst value, where there is one. Not so for the baseline's, where that
    would flatter the candidate.
    """
    import numpy as np

    values = grid.values
    if complete and metric.worst is not None:
        values = np.where(grid.status == MISSING, metric.worst, values)
    if metric.aggregate:
        return _passed(metric, values)
    present = ~np.isnan(values)
    counts = present.sum(axis=1)
    sums = np.where(present, values, 0.0).sum(axis=1)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def attempts(metric: Metric) -> int:
    """The k of ``pass^k`` and ``pass@k``; 1 for a mean."""
    return int(metric.aggregate[5:]) if metric.aggregate else 1


def _passed(metric: Metric, values: Floats) -> Floats:
    """``pass^k``: the chance that k trials of a case all pass; ``pass@k``: that at least one does.

    Unbiased for k ≤ n trials of which c pass: pass^k = C(c, k)/C(n, k) (Yao et al. 2024, τ-bench, arXiv 2406.12045);
    pass@k = 1 − C(n − c, k)/C(n, k) (Chen et al. 2021, arXiv 2107.03374). Where less is better, one minus that: the
    share of cases where not all, or none, of k trials are as they should be. NaN for fewer than k trials.
    """
    import numpy as np

    count = attempts(metric)
    present = ~np.isnan(values)
    trials = present.sum(axis=1)
    higher = metric.direction == "higher"
    needed = metric.passes if metric.passes is not None else (1.0 if higher else 0.0)
    passed = (present & (values >= needed if higher else values <= needed)).sum(axis=1)
    every = metric.aggregate.startswith("pass^")
    wanted = passed if every else trials - passed
    chance = np.ones(len(values))
    for one in range(count):  # C(wanted, k)/C(trials, k), factor by factor
        chance *= np.maximum(wanted - one, 0) / np.maximum(trials - one, 1)
    reached = chance if every else 1.0 - chance
    found: Floats = np.where(trials >= count, reached if higher else 1.0 - reached, np.nan)
    return found
