"""Evidence that may be looked at all the time: e-processes for staged rollouts.

An e-process is wealth that starts at 1 and, while the null hypothesis holds, is not expected to grow. By Ville's
inequality it reaches 1/α at *any* time, however often one looks, with probability at most α. Each meter below keeps
plain counts and answers two questions from them, as the logarithm of wealth:

- ``log_harm``: how strong is the evidence that the candidate is worse by **more** than a margin? (→ roll back)
- ``log_safe``: how strong is the evidence that it is worse by **less** than a margin? (→ promote)

Compare with :func:`log_threshold`. Neither being reached is "inconclusive": lack of data never decides.

=================  =======================================  ==========================================================
meter              one unit gives                           null hypothesis by
=================  =======================================  ==========================================================
``LabelMeter``     had an error (timeout, slow…), or not    ratio of the two arms' rates
``BernoulliMeter`` an event, or not; candidate arm only     a stated maximum rate
``ScoreMeter``     a score in 0..1, higher is better        difference of means
``CostMeter``      a cost, cut off at a cap                 ratio of the mean costs
``PairMeter``      a shadow pair, better or worse           odds among the pairs that differ
=================  =======================================  ==========================================================

Use. The unit is the assignment key, one observation each, fed in order of assignment with the weight in force when it
was assigned. Meters are immutable: ``meter = meter.observe(…)``. They survive a round trip through JSON
(:func:`dump`, :func:`load`) and those of two replicas that saw different units add up: ``a + b``. One meter per
(candidate, baseline, environment, metric spec), never restarted: five restarts turn 5 % false alarms into 13.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from lockgate.errors import InputError

HARM_RATIOS = (1.5, 2.0, 3.0, 5.0, 8.0, 15.0)
"""Alternatives bet on by ratio meters, as multiples of the null ratio, when looking for harm."""
SAFE_RATIOS = (0.25, 0.5, 0.75)
"""… and when looking for safety."""
BETS = (0.1, 0.3, 0.6, 0.95, 0.95)
"""Fractions of the largest bet that cannot ruin a bounded meter; wealth is the mean over them.

The largest stands twice: a loss that is large against its noise is settled a tenth sooner, a noisy one 1 % later."""
RESOLUTION = 1e-3
"""Bounded observations are counted in bins this wide; half a bin is charged against every bet, so that bounds hold."""
BLOCK = 8
"""A block keeps this many of the latest units of each arm."""

_Meter = TypeVar("_Meter", bound=msgspec.Struct)


def log_threshold(alpha: float, tests: int = 1) -> float:
    """What a log wealth must reach to reject at level ``alpha`` when ``tests`` meters are watched: log(tests/α)."""
    return math.log(tests / alpha)


def dump(meter: msgspec.Struct) -> Any:
    """The meter as JSON-ready values."""
    return msgspec.to_builtins(meter, str_keys=True)


def load(kind: type[_Meter], state: Any) -> _Meter:
    """The meter that :func:`dump` gave ``state`` for."""
    return msgspec.convert(state, kind, str_keys=True)


class Arms(msgspec.Struct, frozen=True, kw_only=True):
    """Events of the two arms while the candidate's weight was ``weight`` (0..1)."""

    weight: float
    stable: int = 0
    candidate: int = 0


class LabelMeter(msgspec.Struct, frozen=True, kw_only=True):
    """Which arm do the events come from?

    Looks at events only. With candidate weight π and odds o = π/(1−π), an event is the candidate's with probability
    ρo/(1+ρo) when its event rate is ρ times the baseline's. That ratio is tested, so the meter stays exact when
    weights change and when an incident raises both rates. (After Lindon & Malek, NeurIPS 2022, arXiv 2011.03567.)
    With no events it never moves.
    """

    arms: tuple[Arms, ...] = ()

    def observe(self, *, candidate: bool, weight: float, count: int = 1) -> LabelMeter:
        """``count`` events of one arm, for units assigned under ``weight`` (0..1)."""
        if not 0 <= weight <= 1:
            raise InputError(f"weight {weight!r} is not in 0..1", remedy="give a fraction, not a percentage")
        more = Arms(weight=weight, **{"candidate" if candidate else "stable": count})
        return LabelMeter(arms=_add_arms(self.arms, (more,)))

    def __add__(self, other: LabelMeter) -> LabelMeter:
        return LabelMeter(arms=_add_arms(self.arms, other.arms))

    @property
    def stable(self) -> int:
        return sum(row.stable for row in self.arms)

    @property
    def candidate(self) -> int:
        return sum(row.candidate for row in self.arms)

    def log_harm(self, ratio: float = 1.0) -> float:
        """Evidence against "the candidate's rate is at most ``ratio`` times the baseline's"."""
        return _log_mean([self._log_wealth(ratio, ratio * r) for r in HARM_RATIOS])

    def log_safe(self, ratio: float = 2.0) -> float:
        """Evidence against "the candidate's rate is at least ``ratio`` times the baseline's"."""
        return _log_mean([self._log_wealth(ratio, ratio * r) for r in SAFE_RATIOS])

    def log_split(self) -> float:
        """Evidence that the arms were not split by the stated weights (feed it every unit, not events).

        A sample ratio mismatch: something lost or misrouted units, and nothing else measured can be trusted.
        """
        return _log_mean([self._log_wealth(1.0, r) for r in (0.5, 0.67, 0.8, 1.25, 1.5, 2.0)])

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """The ratios of rates not rejected at any time so far: a (1−α) confidence sequence, within 1/50..50."""
        limit = log_threshold(alpha, 2)
        grid = [50 ** (step / 100) for step in range(-100, 101)]
        kept = [r for r in grid if self.log_harm(r) < limit and self.log_safe(r) < limit]
        return (min(kept), max(kept)) if kept else (grid[0], grid[-1])

    def _log_wealth(self, null: float, alternative: float) -> float:
        total = 0.0
        for row in self.arms:
            if not 0 < row.weight < 1:
                continue  # only one arm could have events: they say nothing about the ratio
            odds = row.weight / (1 - row.weight)
            q0, q1 = null * odds / (1 + null * odds), alternative * odds / (1 + alternative * odds)
            total += row.candidate * math.log(q1 / q0) + row.stable * math.log((1 - q1) / (1 - q0))
        return total


class BernoulliMeter(msgspec.Struct, frozen=True, kw_only=True):
    """Is the candidate's event rate above, or below, a stated rate?

    Likelihood ratios of ``events`` in ``units`` against alternatives whose odds are multiples of the stated rate's.
    ``log_harm`` is the fast path that watches for catastrophes in order of arrival; ``log_safe`` can promote when
    there are no events at all, which :class:`LabelMeter` cannot.
    """

    units: int = 0
    events: int = 0

    def observe(self, event: bool, *, count: int = 1) -> BernoulliMeter:
        """``count`` units that all had the event, or all had none."""
        return BernoulliMeter(units=self.units + count, events=self.events + (count if event else 0))

    def __add__(self, other: BernoulliMeter) -> BernoulliMeter:
        return BernoulliMeter(units=self.units + other.units, events=self.events + other.events)

    def log_harm(self, rate: float) -> float:
        """Evidence against "the rate is at most ``rate``"."""
        return _log_mean([self._log_wealth(rate, r) for r in HARM_RATIOS])

    def log_safe(self, rate: float) -> float:
        """Evidence against "the rate is at least ``rate``"."""
        return _log_mean([self._log_wealth(rate, r) for r in (0.1, *SAFE_RATIOS)])

    def _log_wealth(self, rate: float, odds_ratio: float) -> float:
        if not 0 < rate < 1:
            raise InputError(f"rate {rate!r} is not between 0 and 1", remedy="give a fraction such as 0.02")
        odds = odds_ratio * rate / (1 - rate)
        other = odds / (1 + odds)
        return self.events * math.log(other / rate) + (self.units - self.events) * math.log((1 - other) / (1 - rate))


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Units waiting to be compared, as (assigned at, value); each is used once.

    A block closes as soon as both arms have a unit, so that the two means are of the same moment: a baseline that is
    reused or stale was measured to give 73–100 % false rollbacks.
    """

    stable: tuple[tuple[float, float], ...] = ()
    candidate: tuple[tuple[float, float], ...] = ()

    def add(
        self, value: float, *, candidate: bool, at: float, max_age: float
    ) -> tuple[Block, tuple[float, float] | None]:
        """The block after this unit and, when that closes it, the means (stable, candidate)."""
        stable = tuple(unit for unit in self.stable if at - unit[0] <= max_age)
        other = tuple(unit for unit in self.candidate if at - unit[0] <= max_age)
        if candidate:
            other = (*other, (at, value))[-BLOCK:]
        else:
            stable = (*stable, (at, value))[-BLOCK:]
        if stable and other:
            return Block(), (_mean(v for _, v in stable), _mean(v for _, v in other))
        return Block(stable=stable, candidate=other), None


class ScoreMeter(msgspec.Struct, frozen=True, kw_only=True):
    """Is the candidate's mean score in 0..1 lower than the baseline's?

    Each closed block is one bet on x = mean(stable) − mean(candidate) − margin; wealth is the mean over λ of Π(1 + λx)
    with λ a fraction of 1/b, b the bound that x cannot pass by theory, never the largest seen.
    (Waudby-Smith & Ramdas, JRSS-B 2024, arXiv 2010.09686.) The state is a histogram of the blocks' differences, so
    any margin, and the confidence sequence of the difference, come from the same evidence.
    For a value where lower is better, observe 1 − value.
    """

    differences: dict[int, int] = msgspec.field(default_factory=dict)  # stable − candidate, in bins → blocks
    pending: Block = Block()
    stable_units: int = 0
    candidate_units: int = 0
    stable_sum: float = 0.0
    candidate_sum: float = 0.0

    def observe(self, score: float, *, candidate: bool, at: float, max_age: float = 3600.0) -> ScoreMeter:
        """One unit's score. ``at`` is when it was assigned (seconds); units older than ``max_age`` are not compared."""
        if not 0 <= score <= 1:  # also refuses NaN
            raise InputError(f"score {score!r} is not in 0..1", remedy="scale the metric, or use a CostMeter")
        pending, means = self.pending.add(score, candidate=candidate, at=at, max_age=max_age)
        return msgspec.structs.replace(
            self,
            pending=pending,
            differences=self.differences if means is None else _count(self.differences, means[0] - means[1]),
            stable_units=self.stable_units + (not candidate),
            candidate_units=self.candidate_units + candidate,
            stable_sum=self.stable_sum + (0.0 if candidate else score),
            candidate_sum=self.candidate_sum + (score if candidate else 0.0),
        )

    def observe_pair(self, stable: float, candidate: float) -> ScoreMeter:
        """A shadow pair: both arms' scores of the same input."""
        return self.observe(stable, candidate=False, at=0.0).observe(candidate, candidate=True, at=0.0)

    def __add__(self, other: ScoreMeter) -> ScoreMeter:
        """Evidence of both; units of ``other`` that were still waiting are left out."""
        return ScoreMeter(
            differences=_merge(self.differences, other.differences),
            pending=self.pending,
            stable_units=self.stable_units + other.stable_units,
            candidate_units=self.candidate_units + other.candidate_units,
            stable_sum=self.stable_sum + other.stable_sum,
            candidate_sum=self.candidate_sum + other.candidate_sum,
        )

    @property
    def blocks(self) -> int:
        return sum(self.differences.values())

    def log_harm(self, margin: float = 0.0) -> float:
        """Evidence against "the candidate's mean is lower by at most ``margin``"."""
        return _log_wealth(self.differences, sign=1, shift=-margin, bound=1 + margin)

    def log_safe(self, margin: float) -> float:
        """Evidence against "the candidate's mean is lower by at least ``margin``"."""
        return _log_wealth(self.differences, sign=-1, shift=margin, bound=1 - margin)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """(1−α) confidence sequence for mean(candidate) − mean(stable), by inverting both tests."""
        limit = log_threshold(alpha, 2)
        lowest = _edge(lambda loss: self.log_harm(loss) >= limit)  # losses up to here are rejected
        highest = -_edge(lambda loss: self.log_safe(-loss) >= limit)
        return -highest, -lowest


class CostMeter(msgspec.Struct, frozen=True, kw_only=True):
    """Does the candidate cost more than ``ratio`` times the baseline?

    Costs are cut at ``cap`` (any unit, fixed before the evidence starts: 3 to 5 times the baseline mean, since a loose
    cap takes three times the data), and x = candidate − ratio · stable is bet on as in :class:`ScoreMeter`. What was
    cut is counted in ``tail`` and tested there, so that a rare ruinous run is not hidden by the cap.
    """

    cap: float
    harm_ratio: float = 1.2
    safe_ratio: float = 1.2
    harm: dict[int, int] = msgspec.field(default_factory=dict)  # candidate − harm_ratio·stable, in bins of the cap
    safe: dict[int, int] = msgspec.field(default_factory=dict)  # safe_ratio·stable − candidate
    tail: LabelMeter = LabelMeter()
    pending: Block = Block()
    stable_units: int = 0
    candidate_units: int = 0
    stable_sum: float = 0.0  # of costs as they were, not cut
    candidate_sum: float = 0.0

    def observe(self, cost: float, *, candidate: bool, weight: float, at: float, max_age: float = 3600.0) -> CostMeter:
        """One unit's cost, in the cap's unit; ``weight`` and ``at`` as in the other meters."""
        if not (math.isfinite(cost) and cost >= 0):
            raise InputError(f"cost {cost!r} is not a finite amount", remedy="record costs as numbers from 0 up")
        if not self.cap > 0:
            raise InputError(f"cap {self.cap!r} is not positive", remedy="use 3 to 5 times the baseline's mean cost")
        scaled = min(cost, self.cap) / self.cap
        pending, means = self.pending.add(scaled, candidate=candidate, at=at, max_age=max_age)
        harm, safe = self.harm, self.safe
        if means is not None:
            harm = _count(harm, means[1] - self.harm_ratio * means[0])
            safe = _count(safe, self.safe_ratio * means[0] - means[1])
        return msgspec.structs.replace(
            self,
            harm=harm,
            safe=safe,
            tail=self.tail.observe(candidate=candidate, weight=weight) if cost > self.cap else self.tail,
            pending=pending,
            stable_units=self.stable_units + (not candidate),
            candidate_units=self.candidate_units + candidate,
            stable_sum=self.stable_sum + (0.0 if candidate else cost),
            candidate_sum=self.candidate_sum + (cost if candidate else 0.0),
        )

    def __add__(self, other: CostMeter) -> CostMeter:
        """Evidence of both; units of ``other`` that were still waiting are left out."""
        if (self.cap, self.harm_ratio, self.safe_ratio) != (other.cap, other.harm_ratio, other.safe_ratio):
            raise InputError("cost meters of different caps or ratios do not add up", remedy="keep one per metric spec")
        return msgspec.structs.replace(
            self,
            harm=_merge(self.harm, other.harm),
            safe=_merge(self.safe, other.safe),
            tail=self.tail + other.tail,
            stable_units=self.stable_units + other.stable_units,
            candidate_units=self.candidate_units + other.candidate_units,
            stable_sum=self.stable_sum + other.stable_sum,
            candidate_sum=self.candidate_sum + other.candidate_sum,
        )

    @property
    def blocks(self) -> int:
        return sum(self.harm.values())

    def log_harm(self) -> float:
        """Evidence against "the candidate costs at most ``harm_ratio`` times the baseline" (costs as cut)."""
        return _log_wealth(self.harm, sign=1, shift=0.0, bound=self.harm_ratio)

    def log_tail(self, ratio: float = 3.0) -> float:
        """Evidence against "costs above the cap are at most ``ratio`` times as frequent": a test of its own."""
        return self.tail.log_harm(ratio)

    def log_safe(self) -> float:
        """Evidence against "the candidate costs at least ``safe_ratio`` times the baseline" (costs as cut)."""
        return _log_wealth(self.safe, sign=1, shift=0.0, bound=1.0)

    @property
    def ratio(self) -> float | None:
        """Mean cost of the candidate over the baseline's, not cut; None before both arms have cost anything."""
        if not (self.stable_sum > 0 and self.candidate_units):
            return None
        return (self.candidate_sum / self.candidate_units) / (self.stable_sum / self.stable_units)


class PairMeter(msgspec.Struct, frozen=True, kw_only=True):
    """Shadow pairs with a yes/no outcome: McNemar's test as an e-process.

    Only pairs that differ count. If the versions are equal, half of those are worse.
    """

    worse: int = 0  # the baseline was right, the shadow wrong
    better: int = 0
    same: int = 0

    def observe(self, *, stable_ok: bool, candidate_ok: bool) -> PairMeter:
        return PairMeter(
            worse=self.worse + (stable_ok and not candidate_ok),
            better=self.better + (candidate_ok and not stable_ok),
            same=self.same + (stable_ok == candidate_ok),
        )

    def __add__(self, other: PairMeter) -> PairMeter:
        return PairMeter(worse=self.worse + other.worse, better=self.better + other.better, same=self.same + other.same)

    def log_harm(self, odds: float = 1.0) -> float:
        """Evidence against "among pairs that differ, at most ``odds`` worse ones to each better one"."""
        return self._discordant.log_harm(odds / (1 + odds))

    def log_safe(self, odds: float = 2.0) -> float:
        """Evidence against "at least ``odds`` worse ones to each better one"."""
        return self._discordant.log_safe(odds / (1 + odds))

    @property
    def _discordant(self) -> BernoulliMeter:
        return BernoulliMeter(units=self.worse + self.better, events=self.worse)


def _add_arms(left: tuple[Arms, ...], right: tuple[Arms, ...]) -> tuple[Arms, ...]:
    rows = {row.weight: row for row in left}
    for row in right:
        old = rows.get(row.weight, Arms(weight=row.weight))
        rows[row.weight] = Arms(
            weight=row.weight, stable=old.stable + row.stable, candidate=old.candidate + row.candidate
        )
    return tuple(rows[weight] for weight in sorted(rows))


def _count(bins: dict[int, int], value: float) -> dict[int, int]:
    return _merge(bins, {round(value / RESOLUTION): 1})


def _merge(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    merged = dict(left)
    for bin_, count in right.items():
        merged[bin_] = merged.get(bin_, 0) + count
    return merged


def _log_wealth(bins: dict[int, int], *, sign: int, shift: float, bound: float) -> float:
    """log of the mean over bets of Π(1 + λx), x = sign · bin + shift, less half a bin for the rounding."""
    half = RESOLUTION / 2
    widest = bound + half
    logs = []
    for bet in BETS:
        rate = bet / widest
        logs.append(
            sum(count * math.log1p(rate * (sign * bin_ * RESOLUTION + shift - half)) for bin_, count in bins.items())
        )
    return _log_mean(logs)


def _log_mean(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / len(logs))


def _edge(rejected: Callable[[float], bool]) -> float:
    """The largest value in −1..1 up to which all are rejected; −1 when none is."""
    low, high = -0.999, 0.999
    if not rejected(low):
        return -1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
