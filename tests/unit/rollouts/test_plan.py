"""The rollout block becomes a plan, or one error that names the key, the value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.rollouts.model import MetricSpec, Phase
from lockgate.rollouts.plan import direct, parse, seconds

QUALITY = MetricSpec(name="grounded", kind="quality", margin=0.1)


def test_nothing_said_is_the_plan_of_the_playbook() -> None:
    plan = parse({})
    assert [(phase.weight, phase.min_seconds) for phase in plan.phases] == [(5, 3600), (25, 7200), (50, 14400)]
    assert [spec.name for spec in plan.metrics] == ["errors", "latency", "cost_usd"]
    assert (plan.alpha, plan.beta, plan.promote, plan.warm) == (0.05, 0.05, "when_safe", 86400)


def test_the_whole_block_is_read() -> None:
    plan = parse(
        {
            "shadow": {"mirror": 50, "min_pairs": 8, "max": "10m"},
            "phases": [{"weight": 5, "min": "90s", "min_units": 3}, {"weight": 50, "mirror": 10}],
            "gates": {"latency": False, "cost_usd": {"ratio": 1.5, "cap": 5}, "errors": {"max": 0.1}},
            "alpha": 0.1,
            "promote": "when_not_harmful",
            "session_idle": 2,
            "warm": "7d",
        },
        [QUALITY],
    )
    assert plan.phases == (
        Phase(mirror=50, min_pairs=8, max_seconds=600),
        Phase(weight=5, min_seconds=90, min_units=3),
        Phase(weight=50, mirror=10),
    )
    assert plan.metrics == (
        MetricSpec(name="errors", kind="errors", max_rate=0.1),
        MetricSpec(name="cost_usd", kind="cost", ratio=1.5, cap=5),
        QUALITY,
    )
    assert (plan.alpha, plan.promote, plan.session_idle, plan.warm) == (0.1, "when_not_harmful", 2, 604800)
    assert plan.harm_meters == 4  # three metrics and the fast path


def test_keys_that_are_none_are_absent() -> None:
    given = {"shadow": None, "phases": None, "alpha": None, "gates": {"errors": {"ratio": None, "max": None}}}
    assert parse(given) == parse({})


def test_an_empty_shadow_block_has_defaults() -> None:
    assert parse({"shadow": {}}).phases[0] == parse({"shadow": True}).phases[0]
    assert parse({"shadow": False}).phases == parse({}).phases


def test_no_phases_at_all_is_a_direct_plan() -> None:
    assert parse({"phases": []}) == direct(parse({}))
    assert [phase.name for phase in parse({"phases": [], "shadow": True}).phases] == ["shadow"]


def test_a_direct_plan_watches_nothing_and_keeps_the_previous_version_warm() -> None:
    plan = direct(parse({"warm": "1h"}))
    assert (plan.phases, plan.metrics, plan.harm_meters, plan.warm) == ((), (), 0, 3600)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"fases": []}, "unknown key 'fases'"),
        ({"phases": {"weight": 5}}, "is not a list"),
        ({"phases": [{"weight": 50}, {"weight": 5}]}, "[50.0, 5.0] do not rise"),
        ({"phases": [{"weight": 100}]}, "phases[0].weight: 100 is out of range"),
        ({"phases": [{"min": "1h"}]}, "phases[0]: no weight"),
        ({"phases": [{"weight": 5, "min": "soon"}]}, "phases[0].min: 'soon' is not a duration"),
        ({"phases": [{"weight": 5, "min_units": -1}]}, "phases[0].min_units: -1 is not a count"),
        ({"phases": [{"weight": True}]}, "phases[0].weight: True is out of range"),
        ({"shadow": {"mirror": 0}}, "shadow.mirror: 0 is out of range"),
        ({"gates": {"faithfulness": {"margin": 0.1}}}, "'faithfulness' is not measured on live traffic"),
        ({"gates": {"errors": {"margin": 0.1}}}, "unknown key 'margin'"),
        ({"gates": {"errors": 5}}, "gates.errors: 5 is not a gate"),
        ({"alpha": 0}, "alpha: 0 is out of range"),
        ({"alpha": float("nan")}, "alpha: nan is out of range"),
        ({"promote": "always"}, "promote: 'always' is not known"),
    ],
)
def test_what_makes_no_sense_is_named_with_a_remedy(block: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(block)
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("90s", 90), ("1.5h", 5400), ("2d", 172800), ("1w", 604800), (7, 7), (0, 0)]
)
def test_durations(text: object, expected: float) -> None:
    assert seconds(text, "here") == expected


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1h30m", -1, True, None, float("inf"), float("nan")])
def test_no_durations(text: object) -> None:
    with pytest.raises(InputError):
        seconds(text, "here")
