"""The day and the month that a call falls into, in a stated time zone. Pure.

A window is named ``2026-11-21`` or ``2026-11`` (UTC), or with its zone behind: ``2026-11-21 Europe/Berlin``. A day is
from midnight to midnight of the wall clock there, so the days on which clocks change have 23 or 25 hours; where
midnight itself does not exist, the day begins with its first moment.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

Period = Literal["day", "month"]

QUARTER = 900
"""Clocks of every zone are whole quarters of an hour apart from UTC, so no window begins inside of one."""


def window_of(now: float, period: Period = "day", zone: str = "UTC") -> str:
    """The window that ``now`` lies in."""
    return _window(int(now // QUARTER), period, zone)


@lru_cache(maxsize=256)
def _window(quarter: int, period: Period, zone: str) -> str:
    local = datetime.fromtimestamp(quarter * QUARTER, UTC).astimezone(_zone(zone))
    name = local.strftime("%Y-%m-%d" if period == "day" else "%Y-%m")
    return name if zone == "UTC" else f"{name} {zone}"


@lru_cache(maxsize=1024)
def bounds(window: str) -> tuple[float, float]:
    """The Unix times at which the window begins, and at which the next one does."""
    name, _, zone = window.partition(" ")
    if len(name) == len("2026-11"):
        first = date(int(name[:4]), int(name[5:]), 1)
        after = (first + timedelta(days=31)).replace(day=1)
    else:
        first = date.fromisoformat(name)
        after = first + timedelta(days=1)
    return _midnight(first, zone or "UTC"), _midnight(after, zone or "UTC")


def seconds_left(window: str, now: float) -> float | None:
    """Seconds until the window ends (0 when it has ended); None for one that never does."""
    return max(0.0, bounds(window)[1] - now) if window else None


def day_of(now: float) -> str:
    """The UTC day of a time: ``2026-11-21``."""
    return window_of(now)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _midnight(day: date, zone: str) -> float:
    """The first moment whose date in the zone is ``day`` (or later, where the zone left that day out)."""
    guess = datetime(day.year, day.month, day.day, tzinfo=_zone(zone)).timestamp()
    # Near a change of clocks midnight may be there twice or not at all: step through the quarters around it.
    moment = guess - 3 * 3600
    while datetime.fromtimestamp(moment, _zone(zone)).date() < day:
        moment += QUARTER
    return moment
