"""How often rollout and eval gates are wrong, and how soon they are right, by simulation.

    python benchmarks/statistics_gates.py [--rollouts 1000] [--seed 1]

Rollouts: 5 % of the units go to the canary; counts are in canary units. The rules compared are those in use elsewhere:
a fixed threshold looked at every 100 units that fails on the fourth failure, Mann-Whitney on each 100 with a 98 %
interval, and a t/z test on all data so far, looked at every 100; each against Lockgate's e-processes, looked at always.
Quality scores are Beta distributed with standard deviation 0.15.

Eval gates: golden sets with clusters and three trials; the verdict's bounds against the plain normal interval.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lockgate.evals.eprocess import BETS, BLOCK, HARM_RATIOS, RESOLUTION
from lockgate.evals.statistics import by_cluster, estimate, p_below_zero

Floats = NDArray[np.float64]
WEIGHT = 0.05
LOOK = 100
HORIZON = 10_000
ALPHA = 0.05
STABLE_EACH = round((1 - WEIGHT) / WEIGHT)  # stable units for each canary unit
NEVER = 10**9


def first_true(hits: NDArray[np.bool_], times: Floats) -> Floats:
    """The time of the first hit in each row, NEVER without one."""
    return np.where(hits.any(axis=1), np.take_along_axis(times, hits.argmax(axis=1)[:, None], axis=1)[:, 0], NEVER)


def log_mean_exp(total: Floats, log_wealth: Floats, count: int) -> Floats:
    return np.logaddexp(total, log_wealth - math.log(count))


# --- the e-processes, looked at after every unit ---------------------------------------------------------------


def label_process(rng: np.random.Generator, rollouts: int, stable: float, canary: float, alpha: float) -> Floats:
    """When the label meter rolls back. Only events are drawn: the units between them are a geometric gap."""
    rate = WEIGHT * canary + (1 - WEIGHT) * stable
    events = int(HORIZON / WEIGHT * rate * 1.3) + 50
    position = rng.geometric(rate, (rollouts, events)).cumsum(axis=1) * WEIGHT
    is_canary = rng.random((rollouts, events)) < WEIGHT * canary / rate
    return first_true(
        (label_wealth(is_canary, np.full(events, WEIGHT)) >= math.log(1 / alpha)) & (position <= HORIZON), position
    )


def label_wealth(is_canary: NDArray[np.bool_], weight: Floats) -> Floats:
    """log wealth after each event, one row a rollout; ``weight`` is the candidate's at each event."""
    odds = weight / (1 - weight)
    null = odds / (1 + odds)
    total = np.full(is_canary.shape, -np.inf)
    for ratio in HARM_RATIOS:
        other = ratio * odds / (1 + ratio * odds)
        steps = np.where(is_canary, np.log(other / null), np.log((1 - other) / (1 - null)))
        total = log_mean_exp(total, steps.cumsum(axis=1), len(HARM_RATIOS))
    return total


def score_process(
    rng: np.random.Generator,
    rollouts: int,
    stable: float,
    canary: float,
    *,
    horizon: int,
    alpha: float,
    margin: float = 0.0,
) -> Floats:
    """When the score meter rolls back: each canary unit closes a block with the latest stable units, at most eight."""
    found = []
    for size in _batches(rollouts, horizon * BLOCK):
        before = np.minimum(rng.geometric(WEIGHT, (size, horizon)) - 1, BLOCK).clip(1)
        values = scores(rng, stable, (size, horizon, BLOCK))
        values[np.arange(BLOCK) >= before[..., None]] = np.nan
        found.append(pair_process(np.nanmean(values, axis=2), scores(rng, canary, (size, horizon)), alpha, margin))
    return np.concatenate(found)


def pair_process(stable: Floats, canary: Floats, alpha: float, margin: float = 0.0) -> Floats:
    x = stable - canary - margin - RESOLUTION / 2
    total = np.full(x.shape, -np.inf)
    for bet in BETS:
        total = log_mean_exp(total, np.log1p(bet / (1 + margin + RESOLUTION / 2) * x).cumsum(axis=1), len(BETS))
    return first_true(total >= math.log(1 / alpha), np.broadcast_to(np.arange(1.0, x.shape[1] + 1), x.shape))


# --- what is in use elsewhere, looked at every 100 canary units ------------------------------------------------


def by_window(hits: NDArray[np.bool_], needed: int = 1) -> Floats:
    counts = hits.cumsum(axis=1)
    times = np.broadcast_to(np.arange(1.0, hits.shape[1] + 1) * LOOK, hits.shape)
    return first_true(counts >= needed, times)


def error_windows(rng: np.random.Generator, rollouts: int, stable: float, canary: float) -> tuple[Floats, Floats]:
    shape = (rollouts, HORIZON // LOOK)
    return rng.binomial(LOOK * STABLE_EACH, stable, shape) * 1.0, rng.binomial(LOOK, canary, shape) * 1.0


def fixed_errors(stable: Floats, canary: Floats) -> Floats:
    return by_window(canary / LOOK > 0.005, needed=4)


def mann_whitney_errors(stable: Floats, canary: Floats) -> Floats:
    return by_window(proportion_z(stable, canary, LOOK * STABLE_EACH, LOOK) > NormalDist().inv_cdf(0.99))


def peeking_errors(stable: Floats, canary: Floats) -> Floats:
    looks = np.arange(1, stable.shape[1] + 1)
    z = proportion_z(stable.cumsum(axis=1), canary.cumsum(axis=1), LOOK * STABLE_EACH * looks, LOOK * looks)
    return by_window(z > NormalDist().inv_cdf(0.95))


def proportion_z(stable: Floats, canary: Floats, n: NDArray[np.int_] | int, m: NDArray[np.int_] | int) -> Floats:
    """For yes/no data this is Mann-Whitney's statistic with its correction for ties."""
    pooled = (stable + canary) / (n + m)
    error = np.sqrt(pooled * (1 - pooled) * (1 / np.asarray(n) + 1 / np.asarray(m)))
    return np.divide(canary / m - stable / n, error, out=np.zeros_like(stable), where=error > 0)


def quality_rules(
    rng: np.random.Generator, rollouts: int, stable: float, canary: float, windows: int
) -> dict[str, Floats]:
    names = ("fixed threshold", "Mann-Whitney", "peeking t")
    found: dict[str, list[Floats]] = {name: [] for name in names}
    n, m = LOOK * STABLE_EACH, LOOK
    for size in _batches(rollouts, windows * (n + m)):
        a, b = scores(rng, stable, (size, windows, n)), scores(rng, canary, (size, windows, m))
        found["fixed threshold"].append(by_window(b.mean(axis=2) < 0.85, needed=4))
        ranks = np.concatenate((b, a), axis=2).argsort(axis=2).argsort(axis=2)[..., :m].sum(axis=2) + m
        u = ranks - m * (m + 1) / 2
        z = (m * n / 2 - u) / math.sqrt(m * n * (m + n + 1) / 12)
        found["Mann-Whitney"].append(by_window(z > NormalDist().inv_cdf(0.99)))
        looks = np.arange(1, windows + 1)
        means = [one.mean(axis=2).cumsum(axis=1) / looks for one in (a, b)]
        squares = [
            (one**2).mean(axis=2).cumsum(axis=1) / looks - mean**2 for one, mean in zip((a, b), means, strict=True)
        ]
        t = (means[0] - means[1]) / np.sqrt(squares[0] / (n * looks) + squares[1] / (m * looks))
        found["peeking t"].append(by_window(t > NormalDist().inv_cdf(0.95)))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def scores(rng: np.random.Generator, mean: float, shape: tuple[int, ...], sd: float = 0.15) -> Floats:
    total = mean * (1 - mean) / sd**2 - 1
    return rng.beta(mean * total, (1 - mean) * total, shape)


def _batches(rollouts: int, each: int) -> list[int]:
    size = max(1, 12_000_000 // each)
    return [min(size, rollouts - start) for start in range(0, rollouts, size)]


# --- eval gates ------------------------------------------------------------------------------------------------


def eval_gates(rng: np.random.Generator, gates: int) -> None:
    print(f"\neval gate: 60 cases, 3 trials, paired with an equal baseline, bounds at 5 %, {gates} gates")
    print(f"{'':<43}{'bound misses':>14}{'false block':>14}{'passes .05':>13}{'passes .10':>13}")
    for name, clusters, effect in (("independent cases", 60, 0.0), ("40 clusters that versions differ on", 40, 0.08)):
        missed = blocked = fine = coarse = normal = 0
        for _ in range(gates):
            values, cluster = golden_difference(rng, 60, clusters, 0.0, effect)
            units = by_cluster(values, cluster)
            found = estimate(units, (-1, 1))
            missed += found.low > 0
            normal += found.mean - 1.645 * values.std(ddof=1) / math.sqrt(60) > 0
            blocked += p_below_zero(units, (-1, 1)) <= ALPHA
            fine += found.low >= -0.05
            coarse += found.low >= -0.10
        shares = [f"{100 * one / gates:.1f} %" for one in (missed, blocked, fine, coarse, normal)]
        print(f"  {name:<41}{shares[0]:>14}{shares[1]:>14}{shares[2]:>13}{shares[3]:>13}")
        print(f"  {'  plain normal interval':<41}{shares[4]:>14}")
    for loss in (0.1, 0.15, 0.2):
        caught = 0
        for _ in range(gates):
            caught += p_below_zero(by_cluster(*golden_difference(rng, 60, 40, loss, 0.08)), (-1, 1)) <= ALPHA
        print(f"  a loss of {loss:.2f} on every case is a sure loss in {100 * caught / gates:.0f} %")
    print("  30 cases of which 4 % fail in truth: the lower bound lies above the truth in")
    wrong = rng.binomial(30, 0.04, gates)
    bounds = {
        k: estimate(by_cluster(np.r_[np.zeros(k), np.ones(30 - k)], [str(n) for n in range(30)]), (0, 1)).low
        for k in set(wrong.tolist())
    }
    normal = {k: 1 - k / 30 - 1.645 * math.sqrt(k / 30 * (1 - k / 30) / 29) for k in bounds}
    for name, ends in (("this gate", bounds), ("normal interval", normal)):
        print(f"    {name:<43}{100 * np.mean([ends[k] > 0.96 for k in wrong.tolist()]):>16.1f} %")


def golden_difference(
    rng: np.random.Generator, cases: int, clusters: int, loss: float, effect: float
) -> tuple[Floats, list[str]]:
    """The mean difference of each case: difficulty by case, an effect of the version that a cluster shares (its sd)."""
    cluster = np.arange(cases) % clusters
    chance = rng.beta(3, 0.7, cases)
    shift = rng.normal(0, effect, clusters)[cluster] - loss
    before = rng.binomial(3, chance) / 3
    after = rng.binomial(3, (chance + shift).clip(0, 1)) / 3
    return after - before, [str(one) for one in cluster]


# --- the table -------------------------------------------------------------------------------------------------


def false_share(times: Floats, within: int) -> str:
    return f"{100 * np.mean(times <= within):.1f} %"


def soon(times: Floats) -> str:
    caught = times[times < NEVER]
    missed = len(times) - len(caught)
    text = (
        f"{caught.mean():.0f} ({np.quantile(times, 0.9):.0f})"
        if len(caught) > 0.9 * len(times)
        else f"{caught.mean():.0f} (–)"
    )
    return f"{text}{f', {missed} never' if missed else ''}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rollouts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, count = np.random.default_rng(options.seed), options.rollouts
    few = max(40, count // 10)  # rules that draw every score of 10,000 canary units
    began = time.perf_counter()

    null, worse = error_windows(rng, count, 0.005, 0.005), error_windows(rng, count, 0.005, 0.02)
    long = quality_rules(rng, few, 0.85, 0.85, HORIZON // LOOK)
    short = quality_rules(rng, count, 0.85, 0.85, 5)
    drop = quality_rules(rng, count, 0.85, 0.80, 12)
    rules: list[tuple[str, Callable[[Floats, Floats], Floats]]] = [
        ("fixed threshold", fixed_errors),
        ("Mann-Whitney", mann_whitney_errors),
        ("peeking t", peeking_errors),
    ]
    rows = []
    for name, rule in rules:
        errors, caught = rule(*null), rule(*worse)
        cells = (false_share(errors, 500), false_share(errors, HORIZON), soon(caught))
        rows.append((name, *cells, false_share(short[name], 500), false_share(long[name], HORIZON), soon(drop[name])))
    errors = label_process(rng, count, 0.005, 0.005, ALPHA)
    quality = score_process(rng, few, 0.85, 0.85, horizon=HORIZON, alpha=ALPHA)
    early = score_process(rng, count, 0.85, 0.85, horizon=500, alpha=ALPHA)
    rows.append(
        (
            "e-process",
            false_share(errors, 500),
            false_share(errors, HORIZON),
            soon(label_process(rng, count, 0.005, 0.02, ALPHA)),
            false_share(early, 500),
            false_share(quality, HORIZON),
            soon(score_process(rng, count, 0.85, 0.80, horizon=1200, alpha=ALPHA)),
        )
    )
    rows.append(("(prototype)", "2.9 %", "4.6 %", "324 (696)", "–", "4.7 %", "109 (156)"))
    print(
        f"rollout gate: one metric, margin 0, α = 5 %, {WEIGHT:.0%} canary, {count} rollouts ({few} for quality in 10k)"
    )
    print(f"{'':<17}{'errors .5 %, false in':^24}{'detect 2 %':^20}{'quality .85, false in':^24}{'detect .80':^16}")
    print(f"{'':<17}{'500':>10}{'10k':>11}{'mean (p90)':>20}{'500':>13}{'10k':>11}{'mean (p90)':>18}")
    for row in rows:
        print(f"{row[0]:<17}{row[1]:>10}{row[2]:>11}{row[3]:>20}{row[4]:>13}{row[5]:>11}{row[6]:>18}")

    for rate in (0.2, 0.5):
        one = label_process(rng, count, 0.005, rate, ALPHA)
        six = label_process(rng, count, 0.005, rate, ALPHA / 6)
        print(f"{rate:.0%} errors: rollback after {one.mean():.0f} canary units, {six.mean():.0f} with six metrics")
    many = score_process(rng, few, 0.85, 0.80, horizon=4000, alpha=ALPHA / 6, margin=0.02)
    print(f"margin .02 and six metrics, .85 → .80: {soon(many)} canary units")
    pairs = pair_process(scores(rng, 0.85, (count, 3000)), scores(rng, 0.80, (count, 3000)), ALPHA)
    print(f"shadow, a drop of .05: {soon(pairs)} pairs")

    # ramp 5 → 25 → 50 %, 2,000 units each, an incident takes both arms from .5 % to 10 % errors from the second step on
    steps = [(0.05, 0.005), (0.25, 0.1), (0.5, 0.1)]
    is_canary = np.concatenate([rng.random((count, round(2000 * rate))) < weight for weight, rate in steps], axis=1)
    weights = np.concatenate([np.full(round(2000 * rate), weight) for weight, rate in steps])
    meter = (label_wealth(is_canary, weights) >= math.log(1 / ALPHA)).any(axis=1)
    arms = np.array([[2000 * weight, 2000 * (1 - weight)] for weight, _ in steps])
    bad = np.stack([rng.binomial(arms[k].astype(int), rate, (count, 2)) for k, (_, rate) in enumerate(steps)]).sum(
        axis=0
    )
    z = proportion_z(bad[:, 1] * 1.0, bad[:, 0] * 1.0, int(arms[:, 1].sum()), int(arms[:, 0].sum()))
    pooled = 100 * np.mean(z > NormalDist().inv_cdf(0.95))
    print(f"ramp, incident in both arms: pooled z-test {pooled:.1f} % false, label meter {100 * meter.mean():.1f} %")

    eval_gates(rng, min(count, 1000))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
