"""The pace of trials: halved by a 429, resumed when the provider said, grown back by successes."""

from __future__ import annotations

import asyncio

from lockgate.evals.running.pace import HOPELESS_ROUNDS, HOPELESS_SECONDS, Pace
from lockgate.testing import FakeClock


def test_the_first_429_of_a_round_halves_the_limit_and_the_others_do_not() -> None:
    clock = FakeClock(100.0)
    pace = Pace(16, now=clock)
    assert pace.limited(3.0, sent_at=99.0) == 3.0
    pace.limited(5.0, sent_at=99.5)  # was under way when the limit was cut
    assert (pace.limit, pace.pause, pace.backoffs) == (8.0, 5.0, 1)
    clock.advance(5.0)
    pace.limited(1.0, sent_at=104.0)
    assert (pace.limit, pace.backoffs) == (4.0, 2)


def test_without_a_time_the_wait_doubles_until_a_call_succeeds() -> None:
    clock = FakeClock(0.0)
    pace = Pace(16, now=clock)
    waits = []
    for _ in range(3):
        clock.advance(100.0)
        waits.append(pace.limited(None, sent_at=clock()))
    assert waits == [1.0, 2.0, 4.0]
    pace.succeeded()
    clock.advance(100.0)
    assert pace.limited(None, sent_at=clock()) == 1.0


def test_it_never_stops_and_grows_back_to_what_was_asked_for() -> None:
    clock = FakeClock(0.0)
    pace = Pace(4, now=clock)
    for _ in range(10):
        clock.advance(1.0)
        pace.limited(0.0, sent_at=clock())
    assert pace.limit == 1.0
    for _ in range(100):
        pace.succeeded()
    assert pace.limit == 4.0


async def test_a_trial_starts_when_another_ends() -> None:
    pace = Pace(1)
    await pace.start()
    second = asyncio.create_task(pace.start())
    await asyncio.sleep(0)
    assert not second.done()
    pace.end()
    await asyncio.wait_for(second, 60)
    assert pace.running == 1


async def test_a_provider_that_refuses_for_minutes_is_given_up_and_one_answer_is_hope() -> None:
    clock = FakeClock(0.0)
    pace = Pace(4, now=clock)
    for _ in range(HOPELESS_ROUNDS):
        assert not pace.hopeless
        clock.advance(HOPELESS_SECONDS / (HOPELESS_ROUNDS - 1))
        pace.limited(1.0, sent_at=clock())
    assert pace.hopeless
    await asyncio.wait_for(pace.start(), 60)  # nobody waits for it
    pace.succeeded()
    assert not pace.hopeless


def test_a_provider_that_asks_for_an_hour_is_given_up() -> None:
    clock = FakeClock(0.0)
    pace = Pace(4, now=clock)
    pace.limited(3600.0, sent_at=clock())
    assert pace.hopeless
