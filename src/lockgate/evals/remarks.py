"""What an evaluation says beside its verdict: whether its judge may decide, what was left out, why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from lockgate.errors import InputError, LockgateError, Unavailable
from lockgate.evals import golden
from lockgate.evals.model import Case, MetricCard, Rubric
from lockgate.evals.running.meter import Spend
from lockgate.evals.running.outcome import NOT_THE_AGENT, Outcome
from lockgate.money import show_usd

if TYPE_CHECKING:
    from lockgate.evals.judges.calibration import Calibration
    from lockgate.evals.measuring import Labels

COULD_NOT = 0.5
"""From this share of trials lost to a failing provider on, there is no verdict at all."""
LONGEST = 200
"""Characters of an error that a scorecard shows."""

Calibrations: TypeAlias = "dict[str, Calibration | None]"
"""The newest calibration of the judge on each metric that it scores."""


def labels_of(calibrations: Calibrations, agent: str) -> dict[str, Labels]:
    """What people said of answers that the judge has scored too, by metric: enough of it, of this very judge, and of
    this agent's answers. What a judge is off by on another's says nothing of what it is off by here."""
    if not calibrations:
        return {}
    import numpy as np

    from lockgate.evals.judges.correction import FEWEST
    from lockgate.evals.measuring import Labels

    return {
        name: Labels(
            judge=np.array([pair[0] for pair in found.pairs]),
            human=np.array([pair[1] for pair in found.pairs]),
            weight=np.array(found.weights or [1.0] * len(found.pairs)),
        )
        for name, found in calibrations.items()
        if found is not None and found.agent == agent and len(found.pairs) >= FEWEST
    }


def check_ran(outcome: Outcome) -> None:
    """Raises where too much was lost to a failing provider, or no money was there, to say anything."""
    if outcome.stopped and outcome.cached + outcome.ran <= outcome.not_the_agent:
        raise Unavailable(
            "could not evaluate: max_usd was reached before the first trial had ended", remedy="raise --max-usd"
        )
    if outcome.not_the_agent >= COULD_NOT * outcome.total:
        raise could_not(outcome)


def warnings_of(
    rubric: Rubric,
    cases: Sequence[Case],
    outcome: Outcome,
    other: Outcome | None,
    calibrations: Calibrations,
    spend: Spend,
) -> list[str]:
    """What whoever reads the scorecard must know."""
    found = golden.warnings(cases) if cases else []
    if rubric.judge is not None and (open_ := uncalibrated(calibrations)):
        found.append(f"the judge {rubric.judge.shown} is not calibrated against human labels: {', '.join(open_)}")
    if outcome.stopped or (other is not None and other.stopped):
        found.append(f"stopped at max_usd: {show_usd(spend.nano)} spent; run again with a higher max_usd to go on")
    if met := outcome.not_the_agent - outcome.failures["budget_exceeded"]:
        found.append(f"{met} trials met a failing provider; the same command tries them again{_first_of(outcome)}")
    if other is not None and (met := other.not_the_agent - other.failures["budget_exceeded"]):
        found.append(f"{met} of the baseline's trials met a failing provider and were left out")
    for kind, error in outcome.errors.items():
        if error and kind not in NOT_THE_AGENT:
            count = outcome.failures[kind]
            many = f"{count} trials failed with {kind}, the first" if count > 1 else f"1 trial failed with {kind}"
            found.append(f"{many}: {_line_of(error)}")
    for (metric, status), trouble in outcome.troubles.items():
        what = "its scorer failed on" if status == "error" else "unscored on"
        worst = ", counted as the worst" if status == "error" else ""
        found.append(f"{metric}: {what} {trouble.count} of {outcome.total} trials{worst}: {_line_of(trouble.reason)}")
    behind = outcome.left_behind + (other.left_behind if other else 0)
    if behind:
        found.append(f"{behind} trials did not end when they were cancelled")
    return found


def _first_of(outcome: Outcome) -> str:
    """What the first trial said that was lost to a failing provider."""
    said = next((error for kind, error in outcome.errors.items() if error and kind in NOT_THE_AGENT), "")
    return f": {_line_of(said)}" if said else ""


def _line_of(error: str) -> str:
    line = error.partition("\n")[0]
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def uncalibrated(calibrations: Calibrations) -> list[str]:
    """The metrics whose judge is not calibrated, each with why where it was tried."""
    return [
        name if found is None else f"{name} ({found.why_not})"
        for name, found in calibrations.items()
        if found is None or not found.good
    ]


def check_strict(rubric: Rubric, calibrations: Calibrations) -> None:
    """No trial is run for a verdict that a judge would decide of whom nobody knows whether it agrees with people."""
    everywhere = rubric.calibrated_judges
    strict = {metric.name for metric in rubric.metrics if metric.blocking and (metric.strict or everywhere)}
    refused = uncalibrated({name: found for name, found in calibrations.items() if name in strict})
    if refused:
        judge = "the judge" if rubric.judge is None else f"the judge {rubric.judge.shown}"
        raise Unavailable(
            f"could not evaluate: {judge} is not calibrated against human labels, and may not decide "
            f"{'blocking metrics in this environment' if everywhere else 'strict metrics'}: {', '.join(refused)}",
            remedy="lockgate judge calibrate, or let them only advise (blocking: false)",
        )


def with_calibration(card: MetricCard, calibrations: Calibrations) -> MetricCard:
    """The metric, with whether its judge agrees with people, and how far."""
    if card.name not in calibrations:
        return card
    found = calibrations[card.name]
    if found is None:
        return msgspec.structs.replace(card, calibrated=False)
    labels = found.labels - found.unscored
    return msgspec.structs.replace(card, calibrated=found.good, kappa=found.kappa, judge_labels=labels)


def could_not(outcome: Outcome) -> LockgateError:
    """There is no verdict: the provider failed too often."""
    kinds = ", ".join(f"{count} × {kind}" for kind, count in outcome.failures.most_common(3))
    full = outcome.failures.most_common(1)[0][0] == "rate_limited"
    ask = "is the quota used up, or the rate limit too low?" if full else "is the model server up and its key right?"
    return Unavailable(
        f"could not evaluate: {outcome.not_the_agent} of {outcome.total} trials met a failing provider "
        f"({kinds}){_first_of(outcome)}",
        remedy=f"{ask} Finished trials are kept: run the same command again",
    )


def no_judge(judged: list[str]) -> LockgateError:
    """Metrics that need a judge have none."""
    return InputError(
        f"{', '.join(judged)} need a judge, and none is named",
        remedy="add evals.judge to the agent file, or --judge provider:name",
    )
