"""Looking more than once without being wrong more often: designs that are fixed before the first trial. Pure.

A gate first runs one trial of some cases, in an order that chance has fixed, and stops as soon as its verdict is
settled. Each look may err with a share of α; what the looks err with together is α, because estimates at later looks
contain those at earlier ones (their joint distribution is that of a Brownian motion seen at growing information). The
boundary that spends a given share at each look follows by numerical integration (Armitage, McPherson & Rowe 1969;
Lan & DeMets 1983). Information is taken as if trials were all the noise there is: then looks depend on each other
least, and where cases add noise of their own, which no trial removes, the levels are on the safe side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lockgate.evals.statistics import Floats

ALPHA = 0.05
"""What a verdict may err with, over all its looks."""
SHOWN = 0.025
"""What each end of a shown interval may err with, over all looks: a 95 % interval."""
FIRST_CLUSTERS = 16
"""Clusters below which nothing is looked at: a spread could not be told from so few. Of about so many, a catastrophe
shows, and is what need not run to its end."""
PASS_CLUSTERS = 60
"""Clusters below which early looks only say *fail*: a small set needs all of α to show that nothing is worse."""
GROWTH = 1.5
"""What looks up to a share t of the trials may err with is α·tᵞ (Kim & DeMets 1987): little at first, so that the last
look keeps nearly all of its power."""
BEFORE_BUYING = 0.5
"""The share of α that the rubric's own trials may use where more may be bought."""

_STEPS = 1601
_NORMAL = NormalDist()


class Level(NamedTuple):
    """What one look may err with. With one look only, all of it."""

    bound: float = ALPHA
    """Of a bound that says *fail*."""
    holds: float = ALPHA
    """Of a bound that says *pass*; 0 where a look cannot."""
    shown: float = SHOWN
    """Of each end of a shown interval."""
    claim: float = ALPHA
    """Of a statement about what the whole set would come to."""
    seen: float = 1.0
    """The share of the rubric's own trials that were run."""
    family: Callable[[int], float] = lambda count: ALPHA / count
    """Of a bound that says *fail*, when it is one of so many."""


class Stage(NamedTuple):
    """One look: the first ``share`` of the clusters, ``trials`` a case. ``work_out`` gives its level, which takes
    numpy, and a while: nobody needs it before the trials have run."""

    share: float
    trials: int
    work_out: Callable[[], Level] = Level
    early: bool = False  # before all of the rubric's own trials have run
    bought: bool = False  # after them

    @property
    def level(self) -> Level:
        return self.work_out()


def design(clusters: int, trials: int, most: int, *, fewest: int = 1, early: bool = True) -> list[Stage]:
    """The looks of a gate with so many clusters and ``trials`` a case, of which up to ``most`` may be bought.

    ``fewest``: trials below which a metric cannot be told (pass^k); ``early``: whether to look before all own trials
    have run. Trials come after cases, because one more case says more than one more trial of the same.

    >>> [(stage.share, stage.trials, round(stage.level.bound, 4)) for stage in design(200, 2, 2)]
    [(0.25, 1, 0.0022), (0.5, 1, 0.0047), (1.0, 1, 0.0136), (1.0, 2, 0.0402)]
    """
    plan = [(share, fewest) for share in (0.25, 0.5) if early and share * clusters >= FIRST_CLUSTERS]
    between = sorted({fewest, (fewest + trials) // 2}) if early and clusters >= FIRST_CLUSTERS else []
    plan += [(1.0, count) for count in between if count < trials]
    own = len(plan) + 1
    counts = [trials]
    while counts[-1] < most and len(counts) < 4:
        counts.append(most if len(counts) == 3 else min(most, counts[-1] * 2))
    plan += [(1.0, count) for count in counts]
    if len(plan) == 1:
        return [Stage(1.0, trials)]
    information = [share * count / counts[-1] for share, count in plan]
    whole = 1.0 if most <= trials else BEFORE_BUYING
    later = len(plan) - own
    spent = [
        whole * (share * count / trials) ** GROWTH if look < own else whole + (1 - whole) * (look - own + 1) / later
        for look, (share, count) in enumerate(plan)
    ]
    passing = [look for look in range(len(plan)) if clusters >= PASS_CLUSTERS or look >= own - 1]
    known = cache(lambda alpha: levels(information, [alpha * part for part in spent]))

    @cache
    def holds() -> dict[int, float]:
        able = levels([information[look] for look in passing], [ALPHA * spent[look] for look in passing])
        return dict(zip(passing, able, strict=True))

    @cache
    def level(look: int) -> Level:
        share, count = plan[look]
        return Level(
            bound=known(ALPHA)[look],
            holds=holds().get(look, 0.0),
            shown=known(SHOWN)[look],
            claim=ALPHA * (spent[look] - (spent[look - 1] if look else 0.0)),
            seen=min(1.0, share * count / trials),
            family=lambda size: known(ALPHA / size)[look],
        )

    return [
        Stage(share, count, partial(level, look), early=look < own - 1, bought=look >= own)
        for look, (share, count) in enumerate(plan)
    ]


def in_order(clusters: Sequence[str]) -> list[int]:
    """The number of each cluster's place in an order that is fixed, but has nothing to do with what is in it.

    It is the same for every version, so that what an early look at one has run serves as the other's baseline.
    """
    names = sorted(set(clusters), key=lambda name: hashlib.sha256(f"lockgate {name}".encode()).digest())
    place = {name: number for number, name in enumerate(names)}
    return [place[name] for name in clusters]


def levels(information: Sequence[float], spent: Sequence[float]) -> list[float]:
    """The one-sided level of each look.

    ``information``: of each look, as a growing share of the last's; ``spent``: what all looks so far may err with.

    >>> [round(level, 4) for level in levels([0.5, 1.0], [0.025, 0.05])]
    [0.025, 0.0354]
    """
    import numpy as np

    grid = np.linspace(-8.0, 8.0, _STEPS)
    step = grid[1] - grid[0]
    apart = np.linspace(-16.0, 16.0, 2 * _STEPS - 1)  # what two points of the grid can be from each other
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
            density = np.convolve(density, np.exp(-((apart / sd) ** 2) / 2), mode="valid")
            density *= step / (sd * math.sqrt(2 * math.pi))
        density = np.where(grid < bound, density, 0.0)
        found.append(1 - _NORMAL.cdf(bound / math.sqrt(share)))
    return found


def _bound(grid: Floats, mass: Floats, sd: float, may: float) -> float:
    """Where the next step ends above with probability ``may``."""
    import numpy as np

    low, high = -8.0, 8.0
    kept = mass > 1e-12
    points, weights = grid[kept], mass[kept]
    for _ in range(30):
        middle = (low + high) / 2
        scaled = ((middle - points) / (sd * math.sqrt(2))).tolist()
        tail = 0.5 * float(np.dot(weights, [math.erfc(each) for each in scaled]))
        low, high = (middle, high) if tail > may else (low, middle)
    return (low + high) / 2
