"""What a plan can decide, and when: simulated beforehand, from what is known or assumed of the traffic.

The same wealth as the meters (:mod:`lockgate.evals.eprocess`), for many rollouts at once. Each metric is simulated by
itself, in candidate units, along the plan's weights: shadow pairs first, then each phase's units, then the last phase
for as long as it takes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from lockgate.evals.eprocess import BETS, BLOCK, HARM_RATIOS, SAFE_RATIOS
from lockgate.rollouts.decision import harm_threshold
from lockgate.rollouts.evidence import MAIN
from lockgate.rollouts.model import Forecast, MetricSpec, Plan, Profile, Scenario

Floats = NDArray[np.float64]


def simulate(plan: Plan, traffic: Profile, *, units: int = 2000, trials: int = 400, seed: int = 0) -> list[Forecast]:
    """Both scenarios for each metric, over at most ``units`` candidate units, shadow pairs included."""
    rng = np.random.default_rng(seed)
    weights = weight_of_unit(plan, units)
    found = []
    for spec in plan.metrics:
        harm_log, safe_log = np.log(harm_threshold(plan)), np.log(1 / plan.beta)
        harm, safe = _wealth(spec, traffic, weights, trials, rng, worse=False)
        harmed, reached = _first(harm, harm_log), _first(safe, safe_log)
        reached = np.where(harmed < reached, units, reached)
        found.append(
            _forecast(spec, "equal", "the same as the baseline", "safe", reached, units)
            if plan.promote == "when_safe"
            else _forecast(spec, "equal", "the same as the baseline", "safe", np.zeros(trials, np.int64), units)
        )
        found[-1] = msgspec.structs.replace(found[-1], false_harm=float(np.mean(harmed < units)))
        harm, _ = _wealth(spec, traffic, weights, trials, rng, worse=True)
        found.append(_forecast(spec, "worse", _effect(spec, traffic), "harm", _first(harm, harm_log), units))
    return found


def weight_of_unit(plan: Plan, units: int) -> Floats:
    """The weight (a fraction) under which each candidate unit is assigned; a shadow pair counts as 1/2."""
    listed: list[float] = []
    for phase in plan.phases:
        listed += [phase.weight / 100 or 0.5] * (phase.min_units if phase.weight else phase.min_pairs)
    last = plan.phases[-1].weight / 100 if plan.phases and plan.phases[-1].weight else 0.5
    return np.array((listed + [last] * units)[:units])


def _wealth(
    spec: MetricSpec, traffic: Profile, weights: Floats, trials: int, rng: np.random.Generator, *, worse: bool
) -> tuple[Floats, Floats]:
    """Log wealth (harm, safe), each of shape (trials, units)."""
    shape = (trials, len(weights))
    if spec.kind in ("errors", "latency"):
        rate = traffic.error_rate if spec.kind == "errors" else 1 - spec.percentile
        mine = rng.random(shape) < (_worse_rate(rate) if worse else rate)
        others = rng.binomial(np.maximum(1, np.round((1 - weights) / weights)).astype(int), rate, shape)
        harm = _log_mean([_ratio_bet(mine, others, weights, spec.ratio, r) for r in HARM_RATIOS])
        absolute = _log_mean([_rate_bet(mine, spec.max_rate, r) for r in (0.1, *SAFE_RATIOS)])
        relative = _log_mean([_ratio_bet(mine, others, weights, 2 * spec.ratio, r) for r in SAFE_RATIOS])
        return harm, np.logaddexp(np.log(MAIN) + absolute, np.log(1 - MAIN) + relative)
    blocks = np.clip(np.round((1 - weights) / weights), 1, BLOCK).astype(int)
    if spec.kind == "quality":
        drop = 2 * spec.margin if worse else 0.0
        stable = _block_means(lambda size: _betas(rng, traffic.score, traffic.score_spread, size), blocks, trials)
        candidate = _betas(rng, max(0.0, traffic.score - drop), traffic.score_spread, shape)
        harm = _bets(stable - candidate - spec.margin, 1 + spec.margin)
        return harm, _bets(candidate - stable + spec.margin, 1 - spec.margin)
    factor = _WORSE_COST * spec.ratio if worse else 1.0
    stable = _block_means(lambda size: _costs(rng, traffic.cost_spread, spec.cap, size), blocks, trials)
    candidate = _costs(rng, traffic.cost_spread, spec.cap, shape, factor)
    harm = np.log(MAIN) + _bets(candidate - spec.ratio * stable, spec.ratio)  # without the tail's share
    return harm, _bets(spec.ratio * stable - candidate, 1.0)


_WORSE_COST = 1.5  # times the tolerated ratio, in the "worse" scenario


def _worse_rate(rate: float) -> float:
    return min(0.9, max(5 * rate, rate + 0.05))


def _effect(spec: MetricSpec, traffic: Profile) -> str:
    if spec.kind == "quality":
        return f"{traffic.score:.2f} → {max(0.0, traffic.score - 2 * spec.margin):.2f}"
    if spec.kind == "cost":
        return f"{_WORSE_COST * spec.ratio:.2g} times the cost"
    rate = traffic.error_rate if spec.kind == "errors" else 1 - spec.percentile
    return f"{rate * 100:.2g} % → {_worse_rate(rate) * 100:.2g} %"


def _bets(x: Floats, bound: float) -> Floats:
    return _log_mean([np.cumsum(np.log1p(bet / bound * x), axis=1) for bet in BETS])


def _ratio_bet(mine: NDArray[np.bool_], others: NDArray[Any], weights: Floats, null: float, times: float) -> Floats:
    odds = weights / (1 - weights)
    q0, q1 = null * odds / (1 + null * odds), null * times * odds / (1 + null * times * odds)
    return np.cumsum(mine * np.log(q1 / q0) + others * np.log((1 - q1) / (1 - q0)), axis=1)


def _rate_bet(mine: NDArray[np.bool_], rate: float, times: float) -> Floats:
    odds = times * rate / (1 - rate)
    other = odds / (1 + odds)
    return np.cumsum(np.where(mine, np.log(other / rate), np.log((1 - other) / (1 - rate))), axis=1)


def _betas(rng: np.random.Generator, mean: float, spread: float, size: tuple[int, ...]) -> Floats:
    if not 0 < mean < 1:
        return np.full(size, min(1.0, max(0.0, mean)))
    strength = mean * (1 - mean) / max(spread, 1e-3) ** 2 - 1
    if strength <= 0.01:  # as spread out as 0..1 allows: yes or no
        return (rng.random(size) < mean).astype(float)
    return rng.beta(mean * strength, (1 - mean) * strength, size)


def _costs(rng: np.random.Generator, spread: float, cap: float, size: tuple[int, ...], factor: float = 1.0) -> Floats:
    sigma = np.sqrt(np.log1p(spread**2))
    return np.minimum(factor * rng.lognormal(-(sigma**2) / 2, sigma, size), cap) / cap


def _block_means(draw: Any, blocks: NDArray[Any], trials: int) -> Floats:
    """Means over as many baseline units as each candidate unit's block holds."""
    means = np.empty((trials, len(blocks)))
    for size in np.unique(blocks):
        chosen = blocks == size
        means[:, chosen] = draw((trials, int(chosen.sum()), int(size))).mean(axis=2)
    return means


def _log_mean(logs: list[Floats]) -> Floats:
    mean: Floats = np.logaddexp.reduce(np.stack(logs), axis=0) - np.log(len(logs))
    return mean


def _first(wealth: Floats, limit: float) -> NDArray[np.int64]:
    """The unit (from 0) at which each trial first reached the limit; the number of units when it never did."""
    reached = wealth >= limit
    first: NDArray[np.int64] = np.where(reached.any(axis=1), reached.argmax(axis=1), wealth.shape[1])
    return first


def _forecast(
    spec: MetricSpec,
    scenario: Scenario,
    effect: str,
    verdict: Literal["safe", "harm"],
    first: NDArray[np.int64],
    units: int,
) -> Forecast:
    counts = np.sort(first + 1)
    share = float(np.mean(first < units))
    return Forecast(
        metric=spec.name,
        scenario=scenario,
        effect=effect,
        verdict=verdict,
        share=share,
        median=int(np.percentile(counts, 50, method="lower")) if share >= 0.5 else None,
        p90=int(np.percentile(counts, 90, method="lower")) if share >= 0.9 else None,
    )
