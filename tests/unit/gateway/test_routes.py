"""Routes: a candidate is served only while its lease holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import NotFound
from lockgate.gateway.model import Route
from lockgate.gateway.routes import Routes, chosen, in_force
from lockgate.versions.model import AgentSettings, VersionRef


def version(letter: str) -> VersionRef:
    return VersionRef(agent="triage", behaviour_digest=f"sha256:{letter}", effective_digest=f"sha256:{letter * 2}")


CANARY = Route(
    environment="prod",
    agent="triage",
    stable=version("a"),
    settings=AgentSettings(daily_usd=5.0),
    candidate=version("b"),
    rollout_id="ro_1",
    weight=25.0,
    mirror=10.0,
    lease_until=100.0,
    revision=7,
)


def test_a_route_within_its_lease_serves_the_candidate() -> None:
    assert in_force(CANARY, 99.9) == CANARY


@pytest.mark.parametrize("now", [100.0, 100.1, 1e9])
def test_a_lapsed_route_falls_back_to_stable(now: float) -> None:
    held = in_force(CANARY, now)
    assert (held.candidate, held.rollout_id, held.weight, held.mirror) == (None, None, 0.0, 0.0)
    assert held.stable == CANARY.stable
    assert held.settings == CANARY.settings


def test_a_candidate_without_a_lease_is_not_served() -> None:
    import msgspec

    assert in_force(msgspec.structs.replace(CANARY, lease_until=None), 0.0).candidate is None


def test_a_snapshot_applies_the_lease_at_the_time_of_the_question() -> None:
    routes = Routes([CANARY])
    assert routes.get("prod", "triage", 99.0).candidate == version("b")
    assert routes.get("prod", "triage", 101.0).candidate is None


def test_an_unknown_agent_is_named_with_the_nearest_one() -> None:
    with pytest.raises(NotFound, match=r"(?s)no agent 'triag'.*did you mean 'triage'"):
        Routes([CANARY]).get("prod", "triag", 0.0)


def test_an_agent_of_another_environment_is_unknown() -> None:
    with pytest.raises(NotFound, match="lockgate deploy triage --env dev"):
        Routes([CANARY]).get("dev", "triage", 0.0)


@given(st.text(min_size=1))
def test_none_are_chosen_at_zero_and_all_at_a_hundred(key: str) -> None:
    assert not chosen(key, 0.0)
    assert chosen(key, 100.0)


@given(st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_who_is_chosen_stays_chosen_at_a_higher_share(key: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert chosen(key, high) or not chosen(key, low)


def test_about_the_share_asked_for_is_chosen() -> None:
    count = sum(chosen(f"run_{number}", 30.0) for number in range(2000))
    assert 520 < count < 680  # 600 ± 4 standard deviations of 20.5
