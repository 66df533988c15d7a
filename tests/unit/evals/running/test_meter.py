"""Money is held before a call: trials at the same time cannot pass the limit together."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import pytest

from lockgate.errors import LimitExceeded, LockgateError, RunFailed, UpstreamError
from lockgate.evals.running.meter import Caps, Meter, Spend
from lockgate.evals.running.pace import Pace
from lockgate.results import Usage


class Answer(NamedTuple):
    cost_nano: int
    usage: Usage = Usage(input_tokens=5, output_tokens=5)


async def paid() -> Answer:
    await asyncio.sleep(0.001)
    return Answer(30)


async def test_calls_at_the_same_time_never_pass_the_limit_and_use_what_the_others_leave() -> None:
    spend = Spend(limit=100)
    pace = Pace(10)
    outcomes = await asyncio.gather(
        *(Meter(spend, pace).call(paid, bound=lambda: 60, timeout=60) for _ in range(10)), return_exceptions=True
    )
    answered = [one for one in outcomes if isinstance(one, Answer)]
    assert len(answered) == 2  # 30 + 30; a third could come to 120
    assert all(isinstance(one, LimitExceeded) for one in outcomes if one not in answered)
    assert (spend.total, spend.held, spend.reached) == (60, 0, True)


@pytest.mark.parametrize(
    ("failure", "spent"),
    [
        (UpstreamError("cut off", sent=True), 60),  # nobody knows: the most it may have cost
        (UpstreamError("refused", sent=False), 0),
        (UpstreamError("bad request", sent=True, upstream_status=400), 0),
    ],
)
async def test_a_call_with_an_unknown_outcome_counts_at_its_full_hold(failure: LockgateError, spent: int) -> None:
    async def fails() -> Answer:
        raise failure

    spend = Spend(limit=100)
    with pytest.raises(UpstreamError):
        await Meter(spend, Pace(1)).call(fails, bound=lambda: 60, timeout=60)
    assert (spend.total, spend.held) == (spent, 0)


async def test_a_429_is_sent_again_after_the_time_the_provider_named() -> None:
    failures = [UpstreamError("slow down", sent=True, upstream_status=429, retry_after=0.01)] * 2

    async def busy() -> Answer:
        if failures:
            raise failures.pop()
        return Answer(30)

    meter = Meter(Spend(), Pace(8))
    assert (await meter.call(busy, bound=lambda: 0, timeout=60)).cost_nano == 30
    assert meter.waited >= 0.02
    assert meter.pace.limit < 8


async def test_a_429_that_asks_for_more_time_than_there_is_is_raised_at_once() -> None:
    async def busy() -> Answer:
        raise UpstreamError("slow down", sent=True, upstream_status=429, retry_after=60)

    with pytest.raises(UpstreamError, match="slow down"):
        await Meter(Spend(), Pace(8)).call(busy, bound=lambda: 0, timeout=1)


async def test_a_trials_own_caps_stop_it() -> None:
    meter = Meter(Spend(), Pace(1), Caps(nano=100, tokens=15))
    await meter.call(paid, bound=lambda: 60, timeout=60)
    assert meter.check_tokens() == 5
    meter.check_used()
    with pytest.raises(RunFailed, match="trial has spent"):
        await meter.call(paid, bound=lambda: 80, timeout=60)
    await meter.call(paid, bound=lambda: 60, timeout=60)
    for check in (meter.check_tokens, meter.check_used):  # before another call, and for the answer that was too long
        with pytest.raises(RunFailed, match="20 tokens of 15"):
            check()


async def test_a_wait_that_is_not_over_is_no_part_of_the_agents_time_already() -> None:
    pace = Pace(4)
    pace.limited(30.0, sent_at=time.monotonic())
    meter = Meter(Spend(), pace)
    call = asyncio.create_task(meter.call(paid, bound=lambda: 0, timeout=100))
    await asyncio.sleep(0.02)
    assert meter.waited > 0
    call.cancel()


async def test_after_a_429_no_more_calls_are_under_way_than_the_provider_bears() -> None:
    pace = Pace(8)
    pace.limited(0.0, sent_at=time.monotonic())
    pace.limited(0.0, sent_at=time.monotonic())
    seen = []

    async def counts() -> Answer:
        seen.append(pace.sending)
        return await paid()

    await asyncio.gather(*(Meter(Spend(), pace).call(counts, bound=lambda: 0, timeout=60) for _ in range(8)))
    assert (len(seen), max(seen)) == (8, 2)
