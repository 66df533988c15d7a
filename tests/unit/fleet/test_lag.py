"""Whether an instance runs what it should, and whether it is still there."""

from __future__ import annotations

import msgspec
import pytest

from lockgate.fleet.heartbeats.lag import behind_since, lags, runs, state
from lockgate.fleet.heartbeats.model import Reported, Wanted

WANTED = Wanted(
    behaviour_digest="sha256:" + "a" * 64, effective_digest="sha256:" + "b" * 64, file_version=3, since=1000.0
)
KNOWN = Reported(
    environment="prod",
    agent="triage",
    instance="one",
    version="3",
    status="ok",
    message="",
    interval=60.0,
    first_seen_at=500.0,
    last_seen_at=2000.0,
)


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("sha256:" + "a" * 64, True),
        ("triage@sha256:" + "a" * 64, True),
        ("a" * 12, True),
        ("b" * 12, True),  # the effective digest names it too
        ("3", True),
        ("v3", True),
        ("triage@3", True),
        ("4", False),
        ("a" * 11, False),
        ("a" * 11 + "c", False),
        ("3.0", False),
        ("", False),
    ],
)
def test_a_version_is_known_by_a_digest_or_the_start_of_one_or_its_number(said: str, same: bool) -> None:
    assert runs(said, WANTED) is same


def test_a_number_names_nothing_where_the_file_version_is_not_known() -> None:
    assert not runs("0", msgspec.structs.replace(WANTED, file_version=0))


def test_an_instance_is_behind_since_the_deploy_that_it_has_not_followed() -> None:
    old = msgspec.structs.replace(KNOWN, version="2")
    assert behind_since(KNOWN, WANTED) is None
    assert behind_since(old, WANTED) == 1000.0
    assert behind_since(old, None) is None
    assert behind_since(msgspec.structs.replace(old, version=""), WANTED) is None  # it does not say what it runs


def test_an_instance_that_came_later_is_behind_since_it_came_and_what_was_noted_stays() -> None:
    old = msgspec.structs.replace(KNOWN, version="2", first_seen_at=1500.0)
    assert behind_since(old, WANTED) == 1500.0
    assert behind_since(msgspec.structs.replace(old, behind_since=1200.0), WANTED) == 1200.0


def test_three_heartbeats_may_be_missed_and_one_that_stops_may_go() -> None:
    assert state(KNOWN, 2000.0 + 180.0) == "ok"
    assert state(KNOWN, 2000.0 + 180.1) == "missing"
    assert state(msgspec.structs.replace(KNOWN, status="stopping"), 9999.0) == "stopping"


def test_a_lag_is_told_of_when_there_was_time_to_hear_of_the_version() -> None:
    assert not lags(KNOWN, 1000.0, 1300.0)
    assert lags(KNOWN, 1000.0, 1300.1)
    assert not lags(msgspec.structs.replace(KNOWN, interval=600.0), 1000.0, 2800.0)
    assert not lags(KNOWN, None, 9e9)
