"""One metric on cases × trials. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockgate.evals.model import Metric
from lockgate.evals.statistics import Floats

MISSING, SCORED, SKIPPED, UNSCORED, ERROR = range(5)
"""What became of one metric on one trial, in :class:`Grid`."""


class Grid(NamedTuple):
    """One metric on cases × trials: values (NaN where there is none) and what became of each."""

    values: Floats
    status: NDArray[np.uint8]


def case_means(metric: Metric, grid: Grid, *, complete: bool = True) -> Floats:
    """Each case's mean over its trials.

    ``complete``: a missing trial counts as the worst value, where there is one. Not so for the baseline's, where that
    would flatter the candidate.
    """
    values = grid.values
    if complete and metric.worst is not None:
        values = np.where(grid.status == MISSING, metric.worst, values)
    present = ~np.isnan(values)
    counts = present.sum(axis=1)
    sums = np.where(present, values, 0.0).sum(axis=1)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means
