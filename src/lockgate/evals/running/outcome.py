"""What an evaluation's trials came to, and how far they are.

While they run, figures are kept in plain arrays: numpy is not imported before the first call (see
:mod:`lockgate.evals.runner`).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from lockgate.evals.grid import MISSING, Grid

if TYPE_CHECKING:
    from lockgate.evals.statistics import Floats

NOT_THE_AGENT = frozenset(
    {"model_unavailable", "model_error", "rate_limited", "budget_exceeded", "host_lost", "internal_error"}
)
"""Failures that say nothing of the version: the trial is missing (the worst case), and tried again next time."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an evaluation is. Money is what this evaluation spent, in nano-USD; ``total`` is the most it may run."""

    done: int
    total: int
    cached: int
    failed: int
    cost_nano: int
    seconds: float


class Trouble(msgspec.Struct, kw_only=True):
    """Runs that went well and could not be scored by a metric, and why the first of them could not."""

    count: int = 0
    reason: str = ""


class Tally(msgspec.Struct, kw_only=True):
    """How many trials of one version ran, and what became of them."""

    total: int = 0
    cached: int = 0
    ran: int = 0
    failures: Counter[str] = msgspec.field(default_factory=Counter)
    errors: dict[str, str] = msgspec.field(default_factory=dict)  # by error type, what the first of them said
    troubles: dict[tuple[str, str], Trouble] = msgspec.field(default_factory=dict)  # of scoring, by metric and status
    cost_nano: int = 0  # of all trials, cached ones included
    stopped: bool = False  # the limit was reached before all were run
    left_behind: int = 0  # trials that did not end when they were cancelled

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def not_the_agent(self) -> int:
        return sum(count for kind, count in self.failures.items() if kind in NOT_THE_AGENT)


class Outcome(Tally, kw_only=True):
    """What the trials of one version came to."""

    grids: dict[str, Grid]
    costs: Floats  # USD by case and trial; NaN: did not run
    seconds: Floats


class Cells:
    """One figure on cases × trials, and what became of each: a column a trial, NaN and ``MISSING`` at first."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.values: list[array[float]] = []
        self.status: list[bytearray] = []

    def widen(self, trials: int) -> None:
        """Make room for so many trials a case."""
        while len(self.values) < trials:
            self.values.append(array("d", [math.nan]) * self._rows)
            self.status.append(bytearray([MISSING]) * self._rows)

    def grid(self) -> Grid:
        """As it is now. Each is a copy: what runs later is not in it."""
        import numpy as np

        shape = (self._rows, len(self.values))
        values, status = np.empty(shape), np.empty(shape, np.uint8)
        for trial, (column, codes) in enumerate(zip(self.values, self.status, strict=True)):
            values[:, trial], status[:, trial] = column, np.frombuffer(codes, np.uint8)
        return Grid(values, status)
