"""Which agent answers while another one's runs keep failing."""

from __future__ import annotations

import pytest

from lockgate.errors import InputError, LimitExceeded, Unavailable, UpstreamError
from lockgate.gateway.agent_breakers import AgentBreakers
from lockgate.gateway.model import Route
from lockgate.results import RunResult
from lockgate.versions.model import AgentSettings, VersionRef

REF = VersionRef(agent="triage", behaviour_digest="sha256:a", effective_digest="sha256:b")
FAILED = RunResult(status="failed", error_type="model_error")
GOOD = RunResult(status="completed", output="x")


def route(agent: str = "triage", **breaker: object) -> Route:
    return Route(environment="prod", agent=agent, stable=REF, settings=AgentSettings(breaker=dict(breaker)))


TRIAGE = route(failure_threshold=3, reset_timeout=100.0, fallback="human")
HUMAN = route("human")


@pytest.fixture
def told() -> list[tuple[str, str, str | None, bool]]:
    return []


@pytest.fixture
def breakers(told: list[tuple[str, str, str | None, bool]]) -> AgentBreakers:
    return AgentBreakers(lambda *what: told.append(what))


def fail(breakers: AgentBreakers, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breakers.ended(TRIAGE, "stable", FAILED, None, now)


def test_the_fallback_answers_until_a_run_succeeds_again(
    breakers: AgentBreakers, told: list[tuple[str, str, str | None, bool]]
) -> None:
    fail(breakers, 2)
    assert breakers.stand_in(TRIAGE, lambda _: HUMAN, 0.0) is TRIAGE
    fail(breakers, 1)
    assert breakers.stand_in(TRIAGE, lambda _: HUMAN, 99.0) is HUMAN
    assert breakers.stand_in(TRIAGE, lambda _: HUMAN, 100.0) is TRIAGE  # the probe
    assert breakers.stand_in(TRIAGE, lambda _: HUMAN, 100.5) is HUMAN
    breakers.ended(TRIAGE, "stable", GOOD, None, 101.0)
    assert breakers.stand_in(TRIAGE, lambda _: HUMAN, 101.0) is TRIAGE
    assert told == [("prod", "triage", "human", True), ("prod", "triage", None, False)]


def test_without_a_fallback_runs_are_refused_for_the_time(breakers: AgentBreakers) -> None:
    alone = route(failure_threshold=1, reset_timeout=100.0)
    breakers.ended(alone, "stable", None, UpstreamError("gone", sent=True), 0.0)
    with pytest.raises(Unavailable, match="another 40 s"):
        breakers.stand_in(alone, lambda _: HUMAN, 60.0)


def test_fallbacks_that_name_each_other_end(breakers: AgentBreakers) -> None:
    one = route("one", failure_threshold=1, reset_timeout=100.0, fallback="two")
    two = route("two", failure_threshold=1, reset_timeout=100.0, fallback="one")
    for each in (one, two):
        breakers.ended(each, "stable", FAILED, None, 0.0)
    with pytest.raises(Unavailable):
        breakers.stand_in(one, {"one": one, "two": two}.__getitem__, 1.0)


def test_what_is_not_the_agents_fault_does_not_count(breakers: AgentBreakers) -> None:
    for _ in range(9):
        breakers.ended(TRIAGE, "stable", RunResult(status="failed", error_type="budget_exceeded"), None, 0.0)
        breakers.ended(TRIAGE, "stable", None, LimitExceeded("no", limit="x"), 0.0)
        breakers.ended(TRIAGE, "stable", None, InputError("no"), 0.0)
        breakers.ended(TRIAGE, "stable", None, None, 0.0)
        breakers.ended(TRIAGE, "candidate", FAILED, None, 0.0)
    assert breakers.stand_in(TRIAGE, lambda _: HUMAN, 0.0) is TRIAGE


def test_an_agent_without_a_breaker_always_runs(breakers: AgentBreakers) -> None:
    plain = route()
    for _ in range(99):
        breakers.ended(plain, "stable", FAILED, None, 0.0)
    assert breakers.stand_in(plain, lambda _: HUMAN, 0.0) is plain
