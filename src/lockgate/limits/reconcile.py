"""The ledger held against the spans: two records of the same calls, made apart. Pure.

Every model call leaves its cost in both. They may differ by what is under way, and by holds that were charged in full
because the process that made the call died before it could leave a span; those are known by name (see ``charges.py``).
Anything else is a defect, or somebody's hand in the database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from lockgate.limits.book import known
from lockgate.limits.model import Key
from lockgate.limits.windows import Period, bounds, window_of

_PERIODS: tuple[Period, ...] = ("day", "month")

BOUNDARY = 5.0
"""Seconds around a window's ends in which a call may count for either side: it is held a moment after it came."""


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """One model call as its span tells it."""

    span_id: str  # 16 hex
    at: float
    environment: str
    tenant: str
    agent: str | None
    key: str | None
    run_id: str | None
    model: str | None
    cost_nano: int
    ended: float = 0.0
    tokens: int = 0
    task: str | None = None
    labels: tuple[str, ...] = ()
    session: str | None = None
    is_bound: bool = False  # what it used was not known: it was charged in full
    response_id: str | None = None
    machine: str | None = None  # that it was charged on, of a call at its bound where several share the ledger

    def names(self) -> Iterator[str]:
        """The accounts that it may have been charged to."""
        where = self.environment
        yield f"tenant:{where}:{self.tenant}"
        yield f"project:{where}"
        for kind, name in (("agent", self.agent), ("model", self.model)):
            if name:
                yield f"{kind}:{where}:{name}"
        if self.key and self.key != self.run_id:
            yield f"key:{where}:{self.key}"
        if self.task:
            yield f"task:{where}:{known(self.task)}"
        for label in self.labels:
            yield f"label:{where}:{known(label)}"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One account of one window: what the ledger says, and what the calls add up to (nano-USD)."""

    account: str
    window: str
    settled: int
    traced: int
    untraced: int  # charged for calls that left no span, because their process died
    slack: int  # what may yet move: calls at the window's ends, and calls of this moment
    before: int = 0  # calls of before the account was first written down: they count if there was its limit already
    corrected: int = 0  # what the true figures of calls changed whose spans tell their bound

    @property
    def apart(self) -> int:
        """What the ledger has that the spans do not tell, and ought not to."""
        return self.untraced + self.corrected

    @property
    def difference(self) -> int:
        return self.settled - self.told - self.apart

    @property
    def told(self) -> int:
        """What the spans say: of the calls of before, as much as the ledger can have counted."""
        return self.traced + min(self.before, max(0, self.settled - self.apart - self.traced))

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.slack


def compare(
    settled: Mapping[Key, int],
    calls: Iterable[Paid],
    untraced: Iterable[tuple[Key, int]],
    *,
    corrected: Iterable[tuple[Key, int]] = (),
    moving: Mapping[Key, int],
    since: float,
    now: float,
    lives: Mapping[Key, tuple[float, float]] | None = None,
) -> list[Line]:
    """The accounts of USD in windows that had not ended at ``since``. ``moving``: what is held of each just now;
    ``untraced``: charges of calls without a span; ``corrected``: changes to charges of calls that have one; ``lives``:
    when an account was first written down, and until when calls counted on it (a limit may come and go inside of a
    window)."""
    lives = lives or {}
    always = (0.0, float("inf"))
    before: dict[Key, int] = defaultdict(int)
    zones = {window.partition(" ")[2] or "UTC" for _, window, _ in settled if window}
    traced: dict[Key, int] = defaultdict(int)
    slack: dict[Key, int] = defaultdict(int)
    for call in calls:
        for zone in zones:
            for period in _PERIODS:
                window = window_of(call.at, period, zone)
                near = {window_of(call.at + shift, period, zone) for shift in (-BOUNDARY, BOUNDARY)}
                for name in call.names():
                    began, ended = lives.get((name, window, "usd"), always)
                    if call.at > ended:
                        continue
                    (before if call.at < began else traced)[name, window, "usd"] += call.cost_nano
                    if len(near) > 1:
                        for one in near:
                            slack[name, one, "usd"] += call.cost_nano
                    elif now - max(call.at, call.ended) < 60.0:
                        slack[name, window, "usd"] += call.cost_nano
    lost, changed = _sums(untraced), _sums(corrected)
    lines = []
    for key in sorted(settled):
        account, window, unit = key
        if unit != "usd" or not window or bounds(window)[1] <= since:
            continue
        lines.append(
            Line(
                account=account,
                window=window,
                settled=settled[key],
                traced=traced[key],
                untraced=lost[key],
                slack=slack[key] + moving.get(key, 0),
                before=before[key],
                corrected=changed[key],
            )
        )
    return lines


def _sums(amounts: Iterable[tuple[Key, int]]) -> defaultdict[Key, int]:
    sums: defaultdict[Key, int] = defaultdict(int)
    for key, amount in amounts:
        sums[key] += amount
    return sums
