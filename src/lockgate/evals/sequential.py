"""Looking more than once without being wrong more often: designs that are fixed before the first trial. Pure.

Each look may err with a share of α; what the looks err with together is α, because estimates at later looks contain
those at earlier ones (their joint distribution is that of a Brownian motion seen at growing information). The
boundary that spends a given share at each look follows by numerical integration (Armitage, McPherson & Rowe 1969;
Lan & DeMets 1983). Information is taken as if trials were all the noise there is: then looks depend on each other
least, and where cases add noise of their own, which no trial removes, the levels are on the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from lockgate.evals.statistics import Floats

_STEPS = 1601
_NORMAL = NormalDist()


def levels(information: Sequence[float], spent: Sequence[float]) -> list[float]:
    """The one-sided level of each look.

    ``information``: of each look, as a growing share of the last's; ``spent``: what all looks so far may err with.

    >>> [round(level, 4) for level in levels([0.5, 1.0], [0.025, 0.05])]
    [0.025, 0.0354]
    """
    grid = np.linspace(-8.0, 8.0, _STEPS)
    step = grid[1] - grid[0]
    found: list[float] = []
    density = None
    for look, (share, total) in enumerate(zip(information, spent, strict=True)):
        may = total - (spent[look - 1] if look else 0.0)
        if density is None:
            bound = math.sqrt(share) * _NORMAL.inv_cdf(1 - may)
            density = np.exp(-(grid**2) / (2 * share)) / math.sqrt(2 * math.pi * share)
        else:
            sd = math.sqrt(max(share - information[look - 1], 1e-3))
            bound = _bound(grid, density * step, sd, may)
            kernel = np.exp(-(((grid[:, None] - grid) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
            density = np.einsum("xy,y->x", kernel, density) * step
        density = np.where(grid < bound, density, 0.0)
        found.append(1 - _NORMAL.cdf(bound / math.sqrt(share)))
    return found


def _bound(grid: Floats, mass: Floats, sd: float, may: float) -> float:
    """Where the next step ends above with probability ``may``."""
    low, high = -8.0, 8.0
    kept = mass > 1e-12
    points, weights = grid[kept].tolist(), mass[kept].tolist()
    for _ in range(30):
        middle = (low + high) / 2
        tail = sum(
            weight * 0.5 * math.erfc((middle - point) / (sd * math.sqrt(2)))
            for point, weight in zip(points, weights, strict=True)
        )
        low, high = (middle, high) if tail > may else (low, middle)
    return (low + high) / 2


def buying(trials: int, most: int, alpha: float) -> list[tuple[int, float]]:
    """Trials a case and level of each look: ``trials`` first, then doubled up to ``most``; at most four looks.

    The first look keeps half of α, so that most verdicts cost no more than without buying.

    >>> [(count, round(level, 3)) for count, level in buying(3, 12, 0.05)]
    [(3, 0.025), (6, 0.02), (12, 0.02)]
    """
    counts = [trials]
    while counts[-1] < most and len(counts) < 4:
        counts.append(most if len(counts) == 3 else min(most, counts[-1] * 2))
    if len(counts) == 1:
        return [(trials, alpha)]
    later = len(counts) - 1
    spent = [alpha * (0.5 + 0.5 * look / later) for look in range(len(counts))]
    return list(zip(counts, levels([count / counts[-1] for count in counts], spent), strict=True))
