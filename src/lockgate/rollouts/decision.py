"""What a rollout does next: pure, from the readings. Every answer carries its arithmetic.

- rollback: some harm E ≥ m/α (m meters share α), or the fast path says catastrophe;
- promote: past the last phase, and every safe E ≥ 1/β (or nothing harmful, if the plan says that is enough);
- inconclusive: anything else. It waits, and lack of data never rolls back.
"""

from __future__ import annotations

import math

from lockgate.rollouts.model import Decision, Phase, Plan, Reading, Situation

SPLIT_ALPHA = 0.001
"""The level at which the sample ratio is called wrong: an alarm about the measurement, not about the candidate."""


def decide(plan: Plan, situation: Situation) -> Decision:
    """The next action. Harm is looked at first, also while paused or waiting for a host."""
    harms = _harms(plan, situation)
    if harms:
        return Decision(action="rollback", verdict="rollback", reasons=tuple(harms))
    waits = _waits(plan, situation)
    if situation.phase < len(plan.phases) - 1:
        if waits:
            return _wait(waits)
        following = plan.phases[situation.phase + 1]
        return Decision(
            action="advance",
            verdict="inconclusive",
            reasons=(f"no harm in {_phase_name(plan, situation)}; on to {following.name}",),
        )
    unsafe = [] if plan.promote == "when_not_harmful" else _unsafe(plan, situation)
    if waits or unsafe:
        return _wait(waits + unsafe)
    return Decision(action="promote", verdict="promote", reasons=tuple(_why_promoted(plan, situation)))


def harm_threshold(plan: Plan) -> float:
    """m/α: what a harm E must reach."""
    return max(1, plan.harm_meters) / plan.alpha


def show(value: float) -> str:
    """E as people read it: 0.031, 7.42, 71.2, 1.3e+09."""
    if math.isinf(value):
        return "∞"
    return f"{value:.3g}" if value < 100_000 else f"{value:.1e}"


def _harms(plan: Plan, situation: Situation) -> list[str]:
    limit = harm_threshold(plan)
    meters = f"{len(plan.metrics)} metrics" + (" and the fast path" if plan.catastrophe is not None else "")
    bound = f"{show(limit)} = m/α ({meters}, α {plan.alpha * 100:g} %)"
    found = [
        f"harm {reading.metric} E = {show(reading.harm)} ≥ {bound}: {_means(reading)}"
        for reading in situation.readings
        if reading.harm >= limit
    ]
    if plan.catastrophe is not None and situation.catastrophe >= limit:
        found.append(
            f"fast path E = {show(situation.catastrophe)} ≥ {bound}: {situation.catastrophe_note}, "
            f"more than {plan.catastrophe * 100:g} %"
        )
    return found


def _waits(plan: Plan, situation: Situation) -> list[str]:
    reasons: list[str] = []
    if situation.paused:
        reasons.append(situation.paused)
    if not situation.ready:
        reasons.append("no host serves the candidate yet")
    if situation.sample_ratio >= 1 / SPLIT_ALPHA:
        reasons.append(
            f"sample ratio E = {show(situation.sample_ratio)} ≥ {show(1 / SPLIT_ALPHA)}: units of one arm are missing, "
            "so nothing measured can be trusted"
        )
    if situation.phase < len(plan.phases):
        reasons += _phase_waits(plan.phases[situation.phase], situation, _phase_name(plan, situation))
    return reasons


def _phase_waits(phase: Phase, situation: Situation, name: str) -> list[str]:
    if phase.max_seconds is not None and situation.phase_seconds >= phase.max_seconds:
        return []  # low traffic does not hold a shadow phase for ever: shadow evidence is a help, not a condition
    reasons = []
    if situation.phase_seconds < phase.min_seconds:
        reasons.append(f"{name}: {situation.phase_seconds:.0f} s of {phase.min_seconds:.0f} s")
    if situation.phase_units < phase.min_units:
        reasons.append(f"{name}: {situation.phase_units} of {phase.min_units} candidate units")
    if situation.pairs < phase.min_pairs:
        reasons.append(f"{name}: {situation.pairs} of {phase.min_pairs} scored pairs")
    return reasons


def _unsafe(plan: Plan, situation: Situation) -> list[str]:
    limit = 1 / plan.beta
    return [
        f"safe {reading.metric} E = {show(reading.safe)} < {show(limit)} = 1/β"
        + (f": {reading.note}" if reading.note else "")
        for reading in situation.readings
        if reading.safe < limit
    ]


def _why_promoted(plan: Plan, situation: Situation) -> list[str]:
    if not plan.phases:
        return ["direct: a host serves the candidate"]
    if plan.promote == "when_not_harmful":
        worst = max((reading.harm for reading in situation.readings), default=1.0)
        return [
            f"all phases passed and no harm: largest E = {show(worst)} < {show(harm_threshold(plan))} = m/α",
            "the plan promotes when_not_harmful: safety was not shown",
        ]
    limit = 1 / plan.beta
    return [f"safe {reading.metric} E = {show(reading.safe)} ≥ {show(limit)} = 1/β" for reading in situation.readings]


def _wait(reasons: list[str]) -> Decision:
    return Decision(action="wait", verdict="inconclusive", reasons=tuple(reasons))


def _phase_name(plan: Plan, situation: Situation) -> str:
    return f"phase {situation.phase + 1}/{len(plan.phases)} ({plan.phases[situation.phase].name})"


def _means(reading: Reading) -> str:
    if reading.candidate_mean is None or reading.baseline_mean is None:
        return f"{reading.candidate_units} candidate units"
    counted = f"{reading.candidate_units} + {reading.baseline_units} units, {reading.pairs} pairs"
    return f"candidate {reading.candidate_mean:.4g}, baseline {reading.baseline_mean:.4g} ({counted})"
