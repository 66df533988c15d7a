"""Code that keeps the event loop to itself is interrupted; a machine that stands still is not taken for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from lockgate.evals.running.watchdog import COULD_NOT_EVALUATE, Stuck, Watchdog


def spin() -> None:
    """Never awaits."""
    while True:
        pass


async def test_code_that_never_awaits_is_interrupted() -> None:
    async def trial() -> None:
        spin()

    async with Watchdog(0.2):
        with pytest.raises(Stuck):
            await asyncio.create_task(trial())


async def test_code_beyond_reach_ends_the_process() -> None:
    left: list[int] = []

    async def trial() -> None:
        while not left:
            try:
                spin_until(left)
            except Stuck:
                continue

    def spin_until(left: list[int]) -> None:
        while not left:
            pass

    async with Watchdog(0.1, leave=left.append):
        await asyncio.create_task(trial())
    assert left == [COULD_NOT_EVALUATE]


async def test_a_process_that_got_no_time_at_all_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a night's sleep, or on a machine that is too busy: the clock has gone on for everybody."""
    clock, away = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + away[0])
    async with Watchdog(20.0):
        await asyncio.sleep(0)
        away[0] = 3600.0
        time.sleep(0.7)  # noqa: ASYNC251 - the watchdog looks twice a second
