"""A rollout in words: what it reached is told from what it did not."""

from __future__ import annotations

from typing import Any

import pytest

from lockgate.rollouts.model import Phase, Plan, Rollout
from lockgate.rollouts.view import between, way
from lockgate.versions.model import AgentSettings, VersionRef

OLD = VersionRef(agent="a", behaviour_digest="sha256:" + "1" * 64, effective_digest="sha256:" + "2" * 64)
NEW = VersionRef(agent="a", behaviour_digest="sha256:" + "3" * 64, effective_digest="sha256:" + "4" * 64)
PHASES = (Phase(weight=0.0), Phase(weight=5.0), Phase(weight=25.0))


def rollout(status: Any, phase: int, phases: tuple[Phase, ...] = PHASES) -> Rollout:
    return Rollout(
        id="rollout_1", agent="a", environment="prod", baseline=OLD, candidate=NEW,
        plan=Plan(phases=phases, metrics=()), settings=AgentSettings(), status=status, phase=phase, reason="",
        created_by="ann", created_at=0.0, phase_started_at=0.0, updated_at=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "phase", "said"),
    [
        ("running", 1, "running: shadow ✓ → [5 %] → 25 % → stable"),
        ("paused", 0, "paused: [shadow] → 5 % → 25 % → stable"),
        ("rolled_back", 1, "rolled_back in 5 %: shadow → 5 %; never reached: 25 %, stable"),
        ("aborted", 2, "aborted in 25 %: shadow → 5 % → 25 %; never reached: stable"),
        ("promoted", 2, "promoted: shadow → 5 % → 25 % → stable"),
        ("promoted", 0, "promoted: shadow → stable (without 5 %, 25 %)"),
    ],
)
def test_the_way_of_a_rollout_names_what_it_reached(status: Any, phase: int, said: str) -> None:
    assert way(rollout(status, phase)) == said


def test_a_direct_rollout_has_no_way() -> None:
    assert way(rollout("promoted", 0, ())) == "promoted: direct"


def test_the_same_version_by_other_providers_is_told() -> None:
    assert between("sha256:" + "1" * 64, "sha256:" + "3" * 64) == "111111111111 → 333333333333"
    assert between("sha256:" + "1" * 64, "sha256:" + "1" * 64) == "111111111111 → itself, by other providers"
