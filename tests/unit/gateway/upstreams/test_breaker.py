"""The breaker as a state machine: what it lets through, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lockgate.gateway.upstreams.breaker import PROBE_SECONDS, Breaker


def test_it_opens_at_the_threshold_and_lets_one_try_after_the_reset() -> None:
    breaker = Breaker(threshold=5, reset=300.0)
    assert [breaker.failed(0.0) for _ in range(5)] == [False] * 4 + [True]
    assert not breaker.allows(299.9)
    assert breaker.seconds_left(100.0) == 200.0
    assert breaker.allows(300.0)
    assert not breaker.allows(300.1)
    assert breaker.succeeded(301.0)
    assert breaker.state(301.0) == "closed"
    assert breaker.allows(301.0)


def test_a_failed_probe_opens_it_for_another_reset() -> None:
    breaker = Breaker(threshold=1, reset=10.0)
    breaker.failed(0.0)
    assert breaker.allows(10.0)
    assert breaker.failed(11.0)
    assert not breaker.allows(20.9)
    assert breaker.allows(21.0)


def test_what_another_worker_found_counts_unless_it_is_older_than_what_is_known() -> None:
    breaker = Breaker(threshold=2, reset=10.0)
    breaker.heard(True, 5.0)
    assert not breaker.allows(14.9)
    assert breaker.allows(15.0)
    assert breaker.failed(16.0)
    breaker.heard(False, 15.5)
    assert breaker.state(17.0) == "open"
    breaker.heard(False, 18.0)
    assert (breaker.state(19.0), breaker.failures) == ("closed", 0)
    assert not breaker.failed(20.0)


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(10):
        assert not breaker.failed(0.0)
        assert not breaker.failed(0.0)
        breaker.succeeded(0.0)
    assert breaker.allows(0.0)


def test_calls_that_were_under_way_neither_close_nor_prolong_it() -> None:
    breaker = Breaker(threshold=1, reset=10.0)
    breaker.failed(0.0)
    assert not breaker.succeeded(5.0)
    assert not breaker.failed(9.0)
    assert breaker.allows(10.0)


def test_a_probe_that_never_came_back_does_not_keep_it_shut() -> None:
    breaker = Breaker(threshold=1, reset=10.0)
    breaker.failed(0.0)
    assert breaker.allows(10.0)
    assert not breaker.allows(10.0 + PROBE_SECONDS - 1)
    assert breaker.allows(10.0 + PROBE_SECONDS)
    breaker.forgot()
    assert breaker.allows(10.0 + PROBE_SECONDS)


class BreakerMachine(RuleBasedStateMachine):
    """Against a model that keeps the whole history."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(threshold=3, reset=10.0)
        self.in_a_row = 0
        self.opened_at: float | None = None
        self.probes = 0

    @rule(seconds=st.floats(0.01, 30.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.probes = 0

    @rule(outcome=st.sampled_from(["good", "bad", "lost"]))
    def a_call_asks(self, outcome: str) -> None:
        allowed = self.breaker.allows(self.now)
        if self.opened_at is None:
            assert allowed
        elif self.now - self.opened_at < 10.0:
            assert not allowed
        if not allowed:
            return
        if self.opened_at is not None:
            self.probes += 1
            assert self.probes <= 1
        if outcome == "good":
            self.breaker.succeeded(self.now)
            self.in_a_row, self.opened_at, self.probes = 0, None, 0
        elif outcome == "bad":
            self.breaker.failed(self.now)
            self.in_a_row += 1
            if self.opened_at is not None or self.in_a_row >= 3:
                self.opened_at, self.probes = self.now, 0

    @invariant()
    def it_is_open_exactly_when_the_model_is(self) -> None:
        assert (self.breaker.state(self.now) == "closed") == (self.opened_at is None)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=40, stateful_step_count=30)
