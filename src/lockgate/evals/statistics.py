"""The estimator of the eval gate: means and paired differences, with intervals that hold for small golden sets.

A case is not an independent observation when others share its cluster, so the cluster is the unit everywhere.
Intervals are a cluster bootstrap with Dirichlet weights (Rubin's Bayesian bootstrap) that holds one more cluster, of
average size, at the worst value the metric can take: Gaffke's bound. For 0/1 scores of single cases it *is* the exact
Clopper-Pearson bound, so sixty cases without a difference still do not prove "never"; for large sets it becomes the
usual normal interval with cluster-robust standard errors, which is used from :data:`LARGE` clusters on.

Sources: N. Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable", Math. Methods Statist. 14 (2005); E. Learned-Miller & P. Thomas, arXiv 1905.06208; E. Miller, "Adding error
bars to evals", arXiv 2411.00640; S. Bowyer et al., "Don't use the CLT in LLM evals with fewer than a few hundred
datapoints", arXiv 2503.01747.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 10_000
"""Bootstrap draws for small sets; for larger ones fewer, down to a fifth, so that time stays bounded."""
LARGE = 1000
"""From this many clusters on the normal interval is used: the bootstrap would cost time and say the same."""
POWER = 0.8
"""The power at which the minimum detectable effect is stated."""

_SEED = 20240611  # fixed: the same data always give the same interval


class Units(NamedTuple):
    """Sums and sizes by cluster; their ratio is the mean."""

    sums: Floats
    sizes: Floats


class Estimate(NamedTuple):
    """A mean with its one-sided bounds, each at level ``alpha``: low..high is a (1 − 2·alpha) interval."""

    mean: float
    low: float
    high: float
    error: float  # cluster-robust standard error
    units: int


class Spread(NamedTuple):
    """Standard deviation between cases, and between trials of one case."""

    case: float
    trial: float


def by_cluster(values: Floats, clusters: Sequence[str] | NDArray[Any], weights: Floats | None = None) -> Units:
    """One value a case, added up by cluster (a name or a number), each times its case's weight (1 by default)."""
    weighted = np.ones(len(values)) if weights is None else weights
    named = np.asarray(clusters)
    _, index = np.unique(named if named.dtype.kind in "iu" else named.astype(str), return_inverse=True)
    sums: Floats = np.bincount(index, weights=values * weighted).astype(np.float64)
    sizes: Floats = np.bincount(index, weights=weighted).astype(np.float64)
    return Units(sums, sizes)


def estimate(units: Units, bounds: tuple[float, float] | None, *, alpha: float = 0.05) -> Estimate:
    """The mean and its bounds. ``bounds`` is the range a value can have by theory; None: take the range seen."""
    return estimates(units, bounds, [alpha])[0]


def estimates(units: Units, bounds: tuple[float, float] | None, levels: Sequence[float]) -> list[Estimate]:
    """The same at several levels, for the price of one."""
    mean = float(units.sums.sum() / units.sizes.sum())
    error = standard_error(units)
    lowest, highest = _range(units, bounds)
    count = len(units.sums)
    draws = None if count >= LARGE else _draw(units)
    found = []
    for alpha in levels:
        if alpha <= 0 or (draws is not None and alpha * len(draws.more) < 1):
            low, high = lowest, highest  # so far out nothing is known but what theory says
        elif draws is None:
            reach = NormalDist().inv_cdf(1 - alpha) * error
            low, high = max(lowest, mean - reach), min(highest, mean + reach)
        else:
            low = float(np.quantile(draws.means(lowest), alpha))
            high = float(np.quantile(draws.means(highest), 1 - alpha))
        found.append(Estimate(mean, min(low, mean), max(high, mean), error, count))
    return found


def p_below_zero(units: Units, bounds: tuple[float, float] | None) -> float:
    """The p-value against "the mean is zero or more": small when the mean is surely negative."""
    if len(units.sums) >= LARGE:
        error = standard_error(units)
        mean = float(units.sums.sum() / units.sizes.sum())
        return NormalDist().cdf(mean / error) if error > 0 else float(mean >= 0)
    means = _draw(units).means(_range(units, bounds)[1])
    return (int(np.count_nonzero(means >= 0)) + 1) / (len(means) + 1)


def standard_error(units: Units) -> float:
    """Cluster-robust standard error of the mean (a ratio of sums), with the small-sample factor G/(G−1).

    √(G/(G−1) · Σ(sum − mean·size)²) / Σsize; 0 for a single cluster, which says nothing of its own spread.
    """
    count = len(units.sums)
    if count < 2:
        return 0.0
    total = units.sizes.sum()
    residuals = units.sums - units.sums.sum() / total * units.sizes
    return float(math.sqrt(count / (count - 1) * float(residuals @ residuals)) / total)


def spread(values: Floats) -> Spread:
    """Splits the variance of (cases × trials, NaN where nothing was scored) into cases' and trials'.

    Trials' is the mean of the variances within cases; cases' is what of the variance of the cases' means is left
    after trials' share of it (Miller 2024, section 3). Trials cannot buy away the cases' part.
    """
    counts = np.count_nonzero(~np.isnan(values), axis=1)
    kept, counts = values[counts > 0], counts[counts > 0]
    if not len(kept):
        return Spread(0.0, 0.0)
    means = np.nanmean(kept, axis=1)
    within = np.nansum((kept - means[:, None]) ** 2, axis=1)
    freedom = int((counts - 1).sum())
    trial = float(within.sum() / freedom) if freedom else 0.0
    between = float(means.var(ddof=1)) if len(means) > 1 else 0.0
    return Spread(math.sqrt(max(0.0, between - trial * float((1 / counts).mean()))), math.sqrt(trial))


def detectable(error: float, units: int, *, bounded: bool, alpha: float = 0.05) -> float:
    """The smallest true loss that would be seen with power 0.8: (z₁₋ₐ + z₀.₈) standard errors.

    For bounded scores it is at least 1 − α^(1/G): a rarer failure may simply not be among G clusters.
    """
    normal = NormalDist()
    effect = (normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)) * error
    return max(effect, 1 - alpha ** (1 / units)) if bounded and units else effect


def forecast(units: Units, *, noise: float = 1.0, more: float = 1.0) -> Units:
    """What the same clusters may look like with their scatter multiplied by ``noise``, and ``more`` times as many.

    For asking an estimator what more trials (less scatter) or more cases would settle; no data.
    """
    count = max(1, round(len(units.sums) * more))
    mean = float(units.sums.sum() / units.sizes.sum())
    sizes: Floats = np.resize(units.sizes, count)
    residuals: Floats = np.resize(units.sums - mean * units.sizes, count)
    return Units(mean * sizes + noise * (residuals - residuals.mean() * sizes / sizes.mean()), sizes)


def holm(p_values: Mapping[str, float], level: Callable[[int], float] = lambda left: 0.05 / left) -> set[str]:
    """The hypotheses rejected together (Holm 1979): the k-th smallest p at most ``level(m − k + 1)``, by default 5 %
    over that number."""
    rejected: set[str] = set()
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for number, (name, p) in enumerate(ordered):
        if p > level(len(ordered) - number):
            break
        rejected.add(name)
    return rejected


def _range(units: Units, bounds: tuple[float, float] | None) -> tuple[float, float]:
    if bounds is not None:
        return bounds
    means = units.sums / units.sizes
    return float(means.min()), float(means.max())


class _Draws(NamedTuple):
    """Randomly weighted sums and sizes, and the size of the one more cluster that stands at an extreme."""

    sums: Floats
    sizes: Floats
    more: Floats

    def means(self, extreme: float) -> Floats:
        found: Floats = (self.sums + self.more * extreme) / (self.sizes + self.more)
        return found


def _draw(units: Units) -> _Draws:
    """Dirichlet weights (exponential ones: a ratio needs no scaling) for all clusters and one more of average size."""
    count = len(units.sums)
    weights, more = _weights(count)
    # einsum, not @: a thin product is slowed down, not sped up, by the threads of a BLAS on a busy machine
    found = np.einsum("dc,ck->dk", weights, np.column_stack(units))
    return _Draws(found[:, 0], found[:, 1], more * units.sizes.mean())


@lru_cache(maxsize=4)  # one gate asks for the same number of clusters again and again
def _weights(count: int) -> tuple[Floats, Floats]:
    random = np.random.default_rng(_SEED)
    draws = max(DRAWS // 5, min(DRAWS, 1_500_000 // count))
    return random.standard_exponential((draws, count)), random.standard_exponential(draws)
