"""Three verdicts, from tables that show their arithmetic. α = 5 %, β = 5 %: with 2 metrics and the fast path, m = 3.

harm at m/α = 3 / 0.05 = 60; safe at 1/β = 20.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from lockgate.rollouts.decision import decide, harm_threshold, show
from lockgate.rollouts.model import MetricSpec, Phase, Plan, Reading, Situation

PLAN = Plan(
    phases=(
        Phase(mirror=100, min_pairs=8, max_seconds=600),
        Phase(weight=5, min_seconds=60, min_units=3),
        Phase(weight=50, min_seconds=60, min_units=10),
    ),
    metrics=(MetricSpec(name="errors", kind="errors"), MetricSpec(name="cost_usd", kind="cost", ratio=1.2)),
)
SHADOW, FIRST, LAST = 0, 1, 2


def reading(metric: str, harm: float = 1.0, safe: float = 1.0, **more: Any) -> Reading:
    return Reading(metric=metric, harm=harm, safe=safe, **more)


def situation(phase: int = LAST, *, errors: Any = None, cost: Any = None, **more: Any) -> Situation:
    base = Situation(
        phase=phase,
        phase_seconds=100,
        phase_units=20,
        pairs=8,
        readings=(errors or reading("errors"), cost or reading("cost_usd")),
    )
    return msgspec.structs.replace(base, **more)


def test_the_threshold_is_m_over_alpha() -> None:
    assert harm_threshold(PLAN) == pytest.approx(60)
    assert harm_threshold(msgspec.structs.replace(PLAN, catastrophe=None)) == pytest.approx(40)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [(0.0, "wait"), (59.9, "wait"), (60.0, "rollback"), (1e300, "rollback")],
)
def test_harm_rolls_back_at_60(harm: float, expected: str) -> None:
    assert decide(PLAN, situation(cost=reading("cost_usd", harm=harm))).action == expected


def test_a_rollback_says_its_arithmetic() -> None:
    cost = reading(
        "cost_usd", harm=71.2, candidate_mean=0.0042, baseline_mean=0.0021, candidate_units=30, baseline_units=40
    )
    decision = decide(PLAN, situation(cost=cost))
    assert decision.verdict == "rollback"
    assert decision.message == (
        "harm cost_usd E = 71.2 ≥ 60 = m/α (2 metrics and the fast path, α 5 %): candidate 0.0042, baseline 0.0021 "
        "(30 + 40 units, 0 pairs)"
    )


@pytest.mark.parametrize("phase", [SHADOW, FIRST, LAST])
@pytest.mark.parametrize("more", [{}, {"paused": "paused"}, {"ready": False}, {"phase_seconds": 0.0, "phase_units": 0}])
def test_harm_rolls_back_in_any_phase_paused_or_not(phase: int, more: dict[str, Any]) -> None:
    assert decide(PLAN, situation(phase, errors=reading("errors", harm=61), **more)).action == "rollback"


def test_the_fast_path_rolls_back() -> None:
    seen = situation(FIRST, catastrophe=60.0, catastrophe_note="5 of 5 candidate units failed", phase_units=0)
    decision = decide(PLAN, seen)
    assert decision.action == "rollback"
    assert "fast path E = 60 ≥ 60 = m/α" in decision.message
    assert "5 of 5 candidate units failed, more than 25 %" in decision.message


@pytest.mark.parametrize(
    ("phase", "more", "action", "said"),
    [
        (SHADOW, {"pairs": 7}, "wait", "phase 1/3 (shadow): 7 of 8 scored pairs"),
        (SHADOW, {"pairs": 8}, "advance", "no harm in phase 1/3 (shadow); on to 5 %"),
        (SHADOW, {"pairs": 0, "phase_seconds": 600.0}, "advance", "on to 5 %"),
        (FIRST, {"phase_seconds": 59.0}, "wait", "phase 2/3 (5 %): 59 s of 60 s"),
        (FIRST, {"phase_units": 2}, "wait", "phase 2/3 (5 %): 2 of 3 candidate units"),
        (FIRST, {"phase_units": 3, "phase_seconds": 60.0}, "advance", "on to 50 %"),
        (FIRST, {"paused": "paused"}, "wait", "paused"),
        (FIRST, {"ready": False}, "wait", "no host serves the candidate yet"),
        (FIRST, {"sample_ratio": 1000.0}, "wait", "sample ratio E = 1e+03 ≥ 1e+03"),
        (FIRST, {"sample_ratio": 999.0}, "advance", "on to 50 %"),
    ],
)
def test_a_phase_ends_when_its_conditions_hold(phase: int, more: dict[str, Any], action: str, said: str) -> None:
    decision = decide(PLAN, situation(phase, **more))
    assert (decision.action, decision.verdict) == (action, "inconclusive")
    assert said in decision.message


@pytest.mark.parametrize(
    ("errors", "cost", "action"),
    [
        (19.9, 1000.0, "wait"),  # every safe E must reach 20
        (20.0, 19.9, "wait"),
        (20.0, 20.0, "promote"),
        (20.0, math.inf, "promote"),  # both versions cost nothing
    ],
)
def test_promotion_needs_every_safe_e_at_20(errors: float, cost: float, action: str) -> None:
    seen = situation(LAST, errors=reading("errors", safe=errors), cost=reading("cost_usd", safe=cost))
    assert decide(PLAN, seen).action == action


def test_safety_in_an_early_phase_does_not_skip_the_rest() -> None:
    seen = situation(FIRST, errors=reading("errors", safe=1e6), cost=reading("cost_usd", safe=1e6))
    assert decide(PLAN, seen).action == "advance"


def test_no_data_waits_and_says_for_what() -> None:
    decision = decide(PLAN, situation(LAST, phase_seconds=1e9, phase_units=0, pairs=0))
    assert (decision.action, decision.verdict) == ("wait", "inconclusive")
    assert "0 of 10 candidate units" in decision.message
    assert "safe errors E = 1 < 20 = 1/β" in decision.message


def test_not_harmful_is_enough_where_the_plan_says_so() -> None:
    plan = msgspec.structs.replace(PLAN, promote="when_not_harmful")
    assert decide(plan, situation(LAST, phase_units=9)).action == "wait"
    decision = decide(plan, situation(LAST, errors=reading("errors", harm=3.0)))
    assert decision.action == "promote"
    assert "largest E = 3 < 60 = m/α" in decision.message
    assert "safety was not shown" in decision.message


def test_a_wrong_sample_ratio_stops_a_promotion() -> None:
    seen = situation(LAST, errors=reading("errors", safe=99), cost=reading("cost_usd", safe=99), sample_ratio=1e6)
    assert decide(PLAN, seen).action == "wait"


def test_a_plan_without_phases_promotes_as_soon_as_a_host_is_ready() -> None:
    plan = Plan(phases=(), metrics=(), catastrophe=None)
    seen = Situation(phase=0, phase_seconds=0, phase_units=0, pairs=0, readings=())
    assert decide(plan, seen).action == "promote"
    assert decide(plan, msgspec.structs.replace(seen, ready=False)).action == "wait"


@pytest.mark.parametrize(("value", "text"), [(0.03123, "0.0312"), (71.23, "71.2"), (1.3e9, "1.3e+09"), (math.inf, "∞")])
def test_e_is_shown_with_three_figures(value: float, text: str) -> None:
    assert show(value) == text
