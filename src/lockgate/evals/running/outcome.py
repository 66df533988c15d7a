"""What an evaluation's trials came to, and how far they are."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from lockgate.evals.grid import Grid
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


class Outcome(msgspec.Struct, kw_only=True):
    """What the trials of one version came to."""

    grids: dict[str, Grid]
    total: int
    cached: int = 0
    ran: int = 0
    failures: Counter[str] = msgspec.field(default_factory=Counter)
    troubles: dict[tuple[str, str], Trouble] = msgspec.field(default_factory=dict)  # of scoring, by metric and status
    cost_nano: int = 0  # of all trials, cached ones included
    stopped: bool = False  # the limit was reached before all were run
    left_behind: int = 0  # trials that did not end when they were cancelled
    costs: Floats = msgspec.field(default_factory=lambda: np.empty((0, 0)))  # USD by case and trial; NaN: did not run
    seconds: Floats = msgspec.field(default_factory=lambda: np.empty((0, 0)))

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def not_the_agent(self) -> int:
        return sum(count for kind, count in self.failures.items() if kind in NOT_THE_AGENT)
