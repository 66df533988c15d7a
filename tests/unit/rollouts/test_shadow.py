"""Which shadow pairs count, and in which order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockgate.rollouts import shadow
from lockgate.rollouts.evidence import Pair, RunFacts, Traffic
from lockgate.rollouts.model import MetricSpec, Plan

PLAN = Plan(
    phases=(), metrics=(MetricSpec(name="grounded", kind="quality"),), fidelity=0.8, session_idle=10, unit_deadline=100
)


def run(status: str = "completed", **more: Any) -> RunFacts:
    given: dict[str, Any] = {"id": "run_a", "started_at": 0.0, "ended_at": 1.0, "scores": {"grounded": 1.0}, **more}
    return RunFacts(key="k", status=status, cost_nano=100, **given)


def pair(primary: RunFacts | None = None, shadowed: RunFacts | None = None, **more: Any) -> Pair:
    return Pair(at=0.0, primary=primary or run(), shadow=shadowed or run(), **more)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (pair(), True),
        (pair(first=False), False),  # another run of a key that was paired before
        (pair(primary=run("failed")), False),
        (pair(shadowed=run("failed", error_type="model_timeout")), True),  # the candidate's own failure
        (pair(shadowed=run("failed", error_type="unscored")), False),
        (pair(shadowed=run("failed", error_type="host_lost")), False),
        (pair(shadowed=run("suspended")), False),
        (pair(shadowed=run(tool_calls=5, replayed_calls=4)), True),  # 0.8: at the floor
        (pair(shadowed=run(tool_calls=5, replayed_calls=3)), False),  # 0.6
        (pair(shadowed=run(tool_calls=0)), True),
    ],
)
def test_which_pairs_are_scored(given: Pair, counts: bool) -> None:
    assert (shadow.outcome(given, PLAN) is not None) is counts


@pytest.mark.parametrize(
    ("given", "now", "complete"),
    [
        (pair(), 0.9, False),  # younger than SETTLE: one that began earlier may still appear
        (pair(), 1.0, True),
        (pair(shadowed=run("running", ended_at=None)), 99.0, False),
        (pair(shadowed=run("running", ended_at=None)), 100.0, True),
        (pair(shadowed=run(scores={})), 50.0, False),
        (pair(shadowed=run("failed", scores={})), 50.0, True),
    ],
)
def test_a_pair_waits_for_both_runs_and_their_scores(given: Pair, now: float, complete: bool) -> None:
    assert shadow.is_complete(given, now, PLAN) is complete


def test_pairs_enter_in_the_order_they_began() -> None:
    waiting = pair(shadowed=run("running", ended_at=None))
    assert shadow.complete_prefix([pair(), waiting, pair()], 50.0, PLAN) == [pair()]


def test_fidelity_is_the_share_of_calls_answered_from_the_record() -> None:
    traffic = Traffic()
    for number, scored in enumerate((True, False), 1):
        shadowed = run(id=f"run_{number}", tool_calls=5, replayed_calls=4 if scored else 1)
        given = msgspec.structs.replace(pair(shadowed=shadowed), at=float(number))
        traffic = shadow.add_traffic(traffic, given, scored=scored)
        assert shadow.add_traffic(traffic, given, scored=scored) == traffic  # counted once
    assert (traffic.pairs, traffic.unscored_pairs, traffic.fidelity) == (1, 1, 0.5)
