"""A rollout as people and programs see it: the same figures on the terminal and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lockgate.console import console, table
from lockgate.rollouts.admission import short
from lockgate.rollouts.decision import show
from lockgate.rollouts.model import Deployment, Forecast, Plan, Profile, Reading, Rollout
from lockgate.rollouts.service import RolloutStatus

_LARGE = 1e300  # JSON has no infinity


def brief(rollout: Rollout) -> dict[str, Any]:
    """One rollout, without its evidence."""
    phase = rollout.current if rollout.live else None
    return {
        "id": rollout.id,
        "agent": rollout.agent,
        "environment": rollout.environment,
        "status": rollout.status,
        "phase": rollout.phase,
        "phases": [each.name for each in rollout.plan.phases],
        "weight": phase.weight if phase else 0.0,
        "baseline": msgspec.to_builtins(rollout.baseline),
        "candidate": msgspec.to_builtins(rollout.candidate),
        "reason": rollout.reason,
        "created_by": rollout.created_by,
        "created_at": rollout.created_at,
        "phase_started_at": rollout.phase_started_at,
        "ended_at": rollout.ended_at,
    }


def describe(found: RolloutStatus) -> dict[str, Any]:
    """One rollout with its plan, evidence and history."""
    return {
        **brief(found.rollout),
        "plan": msgspec.to_builtins(found.rollout.plan),
        "decision": msgspec.to_builtins(found.decision) if found.decision else None,
        "harm_at": found.harm_at,
        "safe_at": found.safe_at,
        "metrics": [_metric(reading, found) for reading in found.readings],
        "traffic": {
            "candidate_units": found.traffic.candidate_units,
            "baseline_units": found.traffic.baseline_units,
            "pairs": found.traffic.pairs,
            "unscored_pairs": found.traffic.unscored_pairs,
            "replay_fidelity": found.traffic.fidelity,
        },
        "events": [msgspec.to_builtins(event) for event in found.events],
    }


def deployment(deployed: Deployment) -> dict[str, Any]:
    """What serves an agent."""
    return {
        "agent": deployed.agent,
        "environment": deployed.environment,
        "stable": msgspec.to_builtins(deployed.stable),
        "previous": msgspec.to_builtins(deployed.previous) if deployed.previous else None,
        "warm_until": deployed.warm_until,
        "updated_at": deployed.updated_at,
        "updated_by": deployed.updated_by,
    }


def line(found: RolloutStatus) -> str:
    """Where it stands, in one line."""
    rollout, traffic = found.rollout, found.traffic
    phase = rollout.current if rollout.live else None
    stage = phase.name if phase else rollout.status
    counts = f"{traffic.candidate_units} + {traffic.baseline_units} units, {traffic.pairs} pairs"
    evidence = ", ".join(f"{one.metric} {show(one.harm)}/{show(one.safe)}" for one in found.readings)
    return f"{stage} · {counts} · harm/safe E: {evidence or 'none'}"


def between(old: str, new: str) -> str:
    """Two behaviour digests, short; the same one twice is a change of what its models are asked at."""
    return f"{short(old)} → {short(new)}" if old != new else f"{short(old)} → itself, by other providers"


def way(rollout: Rollout) -> str:
    """The phases: those it went through, where it is, or where it ended and what it never reached."""
    names = [each.name for each in rollout.plan.phases]
    at = rollout.phase
    if not names:
        return f"{rollout.status}: direct"
    if rollout.live:
        stages = [f"{name} ✓" for name in names[:at]] + [f"[{name}]" for name in names[at : at + 1]] + names[at + 1 :]
        return f"{rollout.status}: {' → '.join([*stages, 'stable'])}"
    reached, left = names[: at + 1], names[at + 1 :]
    if rollout.status == "promoted":
        skipped = f" (without {', '.join(left)})" if left else ""
        return f"promoted: {' → '.join([*reached, 'stable'])}{skipped}"
    return f"{rollout.status} in {reached[-1]}: {' → '.join(reached)}; never reached: {', '.join([*left, 'stable'])}"


def draw(found: RolloutStatus, *, history: bool = False) -> None:
    """Print it for people."""
    rollout, out = found.rollout, console()
    versions = between(rollout.baseline.behaviour_digest, rollout.candidate.behaviour_digest)
    out.print(f"{rollout.agent} in {rollout.environment}: {versions}  ({rollout.id})", markup=False, style="bold")
    phase = rollout.current if rollout.live else None
    out.print(way(rollout), markup=False)
    if phase is not None and found.situation is not None and not found.situation.ready:
        out.print("no host serves the candidate: it gets no traffic", markup=False, style="yellow")
    if found.readings:
        out.print()
        table(
            ("metric", "candidate", "baseline", "interval", "units", "pairs", "harm E", "safe E", ""),
            [_row(one, found) for one in found.readings],
        )
        out.print(f"harm at {show(found.harm_at)} = m/α, safe at {show(found.safe_at)} = 1/β", style="dim")
    traffic = found.traffic
    if any(_counts(one) != (traffic.candidate_units, traffic.baseline_units, traffic.pairs) for one in found.readings):
        out.print(
            f"{traffic.candidate_units} + {traffic.baseline_units} units and {traffic.pairs} pairs in all; a metric "
            "counts those it has a value of: a failed one has no score, a shadow no latency, and costs and latencies "
            "count from when the baseline's are known",
            style="dim",
        )
    if traffic.fidelity is not None:
        out.print(
            f"shadow: {traffic.pairs} pairs scored, {traffic.unscored_pairs} not; replay fidelity "
            f"{traffic.fidelity * 100:.0f} % of {traffic.tool_calls} tool calls",
            style="dim",
        )
    if found.decision is not None:
        out.print()
        out.print(f"{found.decision.verdict}: {found.decision.action}", markup=False, style="bold")
        for reason in found.decision.reasons:
            out.print(f"  {reason}", markup=False)
    elif rollout.reason:
        out.print()
        out.print(f"{rollout.status}: {rollout.reason}", markup=False, style="bold")
    if history:
        out.print()
        table(("at", "what", ""), [(_time(event.at), event.kind, event.message) for event in found.events])


def draw_forecasts(plan: Plan, traffic: Profile, found: Sequence[Forecast], units: int) -> None:
    """Print what a plan can decide."""
    phases = " → ".join(phase.name for phase in plan.phases)
    console().print(f"plan: {phases or 'direct'} → stable, promote {plan.promote}", markup=False, style="bold")
    console().print(
        f"traffic ({traffic.source}): errors {traffic.error_rate * 100:.3g} %, scores {traffic.score:.2f} ± "
        f"{traffic.score_spread:.2f}, costs ± {traffic.cost_spread * 100:.0f} %",
        style="dim",
    )
    rows = [
        (
            one.metric,
            one.effect,
            {"safe": "promote", "harm": "roll back"}[one.verdict],
            f"{one.share * 100:.0f} %",
            one.median or f"> {units}",
            one.p90 or f"> {units}",
            f"{one.false_harm * 100:.1f} %" if one.scenario == "equal" else "",
        )
        for one in found
    ]
    table(("metric", "if the candidate is", "then", "decided", "median units", "p90", "false rollback"), rows)
    console().print(
        f"units are the candidate's, shadow pairs included; looked ahead {units}. A promotion needs every metric.",
        style="dim",
    )


def _metric(reading: Reading, found: RolloutStatus) -> dict[str, Any]:
    shown = msgspec.structs.replace(reading, harm=min(reading.harm, _LARGE), safe=min(reading.safe, _LARGE))
    return {**msgspec.to_builtins(shown), "interval": found.differences.get(reading.metric)}


def _row(reading: Reading, found: RolloutStatus) -> tuple[str, ...]:
    interval = found.differences.get(reading.metric)
    return (
        reading.metric,
        _mean(reading.candidate_mean),
        _mean(reading.baseline_mean),
        "" if interval is None else _interval(interval, ratio=reading.metric in _ratios(found)),
        f"{reading.candidate_units} + {reading.baseline_units}",
        str(reading.pairs),
        show(reading.harm) + (" ✗" if reading.harm >= found.harm_at else ""),
        show(reading.safe) + (" ✓" if reading.safe >= found.safe_at else ""),
        reading.note,
    )


def _counts(reading: Reading) -> tuple[int, int, int]:
    return reading.candidate_units, reading.baseline_units, reading.pairs


def _ratios(found: RolloutStatus) -> set[str]:
    return {spec.name for spec in found.rollout.plan.metrics if spec.kind != "quality"}


def _interval(interval: tuple[float, float], *, ratio: bool) -> str:
    low, high = interval
    return f"× {low:.2g} … {high:.2g}" if ratio else f"{low:+.2f} … {high:+.2f}"


def _mean(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _time(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
