"""What runs cost and how long they took, and whether that is within bounds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from lockgate.evals.figures import show
from lockgate.evals.model import Case, Quantiles, Scorecard, TagCost
from lockgate.evals.statistics import Floats

if TYPE_CHECKING:
    from lockgate.evals.running.outcome import Outcome

SHOWN_TAGS = 50


def quantiles(seconds: Floats) -> Quantiles | None:
    """Of all trials that ran; None when none did."""
    ran = seconds[~np.isnan(seconds)]
    if not ran.size:
        return None
    p50, p90, p95, p99 = np.quantile(ran, (0.5, 0.9, 0.95, 0.99)).tolist()
    return Quantiles(p50=p50, p90=p90, p95=p95, p99=p99, highest=float(ran.max()))


class Ran(NamedTuple):
    """What trials cost, in USD, and how long they took, in seconds: cases × trials, NaN where one did not run."""

    costs: Floats
    seconds: Floats


def mean_cost(of: Outcome | Ran | None) -> float | None:
    """USD a trial that ran; None when none did. One that did not run was not free."""
    return None if of is None or np.isnan(of.costs).all() else float(np.nanmean(of.costs))


def costs_by_tag(cases: Sequence[Case], outcome: Outcome | Ran, other: Outcome | Ran | None) -> list[TagCost]:
    """What a run costs by kind of case, the dearest first."""
    members: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        for tag in case.tags:
            members.setdefault(tag, []).append(row)
    found = []
    for tag, rows in members.items():
        costs = outcome.costs[rows]
        if np.isnan(costs).all():
            continue
        before = None if other is None or np.isnan(other.costs[rows]).all() else float(np.nanmean(other.costs[rows]))
        found.append(
            TagCost(
                tag=tag,
                runs=int(np.count_nonzero(~np.isnan(costs))),
                mean_usd=float(np.nanmean(costs)),
                highest_usd=float(np.nanmax(costs)),
                baseline_mean_usd=before,
                mean_seconds=float(np.nanmean(outcome.seconds[rows])),
            )
        )
    return sorted(found, key=lambda one: (-one.mean_usd, one.tag))[:SHOWN_TAGS]


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """One figure held against one bound."""

    agent: str
    version: str
    evaluation: str
    what: str  # "a run", "a run, against the baseline", "tag refunds", "p95"
    value: float | None
    limit: float
    verdict: str  # pass | fail | inconclusive: the evaluation does not have the figure
    text: str


def cost_bounds(
    card: Scorecard, *, a_run: float | None, increase: float | None, by_tag: dict[str, float], every_tag: bool
) -> list[Bound]:
    """``a_run``: USD on average; ``increase``: over the baseline's, as a share; ``every_tag``: for each tag too."""
    found = []
    mean = None if _all_failed(card) else card.mean_cost_usd
    if a_run is not None:
        found.append(_bound(card, "a run", mean, a_run, "usd"))
    if increase is not None:
        before = card.baseline_run_usd
        limit = None if before is None else before * (1 + increase)
        found.append(_bound(card, f"a run, at most {increase:+.0%} on the baseline", mean, limit, "usd"))
    known = {one.tag: one for one in card.costs}
    limits = dict.fromkeys(known, a_run) if every_tag and a_run is not None else {}
    for tag, most in {**limits, **by_tag}.items():
        cost = known.get(tag)
        found.append(_bound(card, f"tag {tag}", None if cost is None else cost.mean_usd, most, "usd"))
    if increase is not None and every_tag:
        for cost in card.costs:
            allowed = None if cost.baseline_mean_usd is None else cost.baseline_mean_usd * (1 + increase)
            found.append(_bound(card, f"tag {cost.tag}, at most {increase:+.0%}", cost.mean_usd, allowed, "usd"))
    return found


def latency_bounds(card: Scorecard, limits: dict[str, float], increase: float | None) -> list[Bound]:
    """``limits``: seconds by quantile (``p95`` …); ``increase``: of p95, over the baseline's."""
    found = []
    took = None if _all_failed(card) else card.latency
    for name, most in limits.items():
        found.append(_bound(card, name, None if took is None else getattr(took, name), most, "seconds"))
    if increase is not None:
        before = None if card.baseline_latency is None else card.baseline_latency.p95 * (1 + increase)
        mine = None if took is None else took.p95
        found.append(_bound(card, f"p95, at most {increase:+.0%} on the baseline", mine, before, "seconds"))
    return found


def _all_failed(card: Scorecard) -> bool:
    """Then nobody knows what a run that comes to an answer takes."""
    return card.failed_trials >= card.cases * card.trials


def _bound(card: Scorecard, what: str, value: float | None, limit: float | None, unit: str) -> Bound:
    shown = unit if unit in ("usd", "seconds") else "usd"
    if value is None or limit is None or value != value:  # NaN is no figure
        missing = "it was not compared with a baseline"
        if value is None:
            missing = "all runs failed" if _all_failed(card) else "the evaluation has no such runs"
        verdict, text = "inconclusive", missing
    else:
        verdict = "pass" if value <= limit else "fail"
        text = f"{show(value, shown)} {'≤' if value <= limit else '>'} {show(limit, shown)}"  # type: ignore[arg-type]
    return Bound(
        agent=card.agent,
        version=card.label,
        evaluation=card.id,
        what=what,
        value=value,
        limit=limit if limit is not None else 0.0,
        verdict=verdict,
        text=text,
    )
