"""A judge's mean, corrected by people's labels: prediction-powered inference. Pure.

Source: Angelopoulos et al. 2023 (Science 382): mean of the judge + mean of (human − judge) on the labelled part.
A judge is rarely wrong, so few labels show few errors and a normal interval covers too little (81 % instead of 90 % in
our simulation with 40 labels); both parts therefore get the gate's own bounded interval, at half the level each.
"""

from __future__ import annotations

import numpy as np

from lockgate.evals.statistics import Estimate, Floats, Units, estimate

FEWEST = 20
"""Labels below which no correction is made."""


def corrected_by_labels(
    said: Units, judge: Floats, human: Floats, weight: Floats | None = None, *, alpha: float = 0.05
) -> Estimate:
    """The mean that people would give where the judge says ``said`` (by cluster), going by how far it was off on other
    answers that both have scored (``judge``, ``human``; one value an answer, at least :data:`FEWEST`). ``weight`` says
    how many answers each stands for, where they were not drawn evenly.

    These must be answers of the same kind. A difference between two versions needs no correction: what the judge is
    off by on both cancels.
    """
    own = estimate(said, (0, 1), alpha=alpha / 2)
    weight = np.ones(len(human)) if weight is None else weight
    off = estimate(Units((human - judge) * weight, weight), (-1, 1), alpha=alpha / 2)
    mean = min(1.0, max(0.0, own.mean + off.mean))
    low, high = max(0.0, own.low + off.low), min(1.0, own.high + off.high)
    return Estimate(mean, min(low, mean), max(high, mean), float(np.hypot(own.error, off.error)), own.units)
