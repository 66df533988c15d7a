"""Token buckets in the hold table (generic cell rate algorithm, ITU-T I.371), shared fairly by their members.

The one number kept of a bucket is the time at which it will be full again. Beside it stands how many members asked in
this minute and in the one before; each member has a record of its own. While more than half of the
bucket is left, anybody may take. Below that, a member's own bucket, an equal share of the whole, must have enough:
so a member that asks for less than its share gets it (one that comes new may be told once to wait for it), and what
nobody asks for goes to whoever does.
"""

from __future__ import annotations

from collections.abc import Sequence

from lockgate.limits.model import Rate, Standing
from lockgate.limits.records import A_EPOCH, A_MEMBERS, A_MEMBERS_BEFORE, A_SETTLED, A_TOUCHED, Records

_EPOCH_NS = 60_000_000_000
_MINUTE_NS = 60_000_000_000

Refusal = tuple[Rate, float, bool]
"""The rate, the seconds until it may pass (below 0: never), and whether only the member's share was used up."""


class Taking:
    """What a call wants from its buckets: looked at first, taken only when every one of them has enough."""

    __slots__ = ("_records", "_stamp", "_writes", "parts", "standings")

    def __init__(self, records: Records, stamp: int) -> None:
        self._records = records
        self._stamp = stamp
        self._writes: list[tuple[int, int]] = []
        self.parts: list[int] = []
        self.standings: list[Standing] = []

    def look(self, rates: Sequence[Rate], tokens: int) -> Refusal | None:
        """The first bucket that has not enough, or None. Call under the table's lock."""
        words, stamp = self._records.words, self._stamp
        for rate in rates:
            is_tokens = rate.unit == "tokens"
            amount = tokens if is_tokens else 1
            unit = "token_rate" if is_tokens else "rate"
            base = self._records.account(unit, rate.name, "")
            cost = int(amount * _MINUTE_NS / rate.per_minute)
            full_at = max(words[base + A_SETTLED], stamp) + cost
            words[base + A_TOUCHED] = stamp
            own = self._records.account(unit, rate.name, rate.member) if rate.member else 0
            active = self._members(base, own) if own else 1
            if amount > rate.per_minute:
                return rate, -1.0, False
            early = full_at - stamp - _MINUTE_NS
            if early > 0:
                return rate, early / 1e9, False
            if own:
                free_at = words[own + A_SETTLED]
                wanted = max(free_at, stamp) + cost * active
                late = wanted - stamp - _MINUTE_NS
                if active > 1 and full_at - stamp > _MINUTE_NS // 2 and late > 0 and free_at > stamp:
                    return rate, late / 1e9, True
                self._writes.append((own + A_SETTLED, min(wanted, stamp + _MINUTE_NS)))
            self._writes.append((base + A_SETTLED, full_at))
            self.parts += (base, cost, 0)
            self.standings.append(
                Standing(
                    name=rate.name,
                    unit=rate.unit,
                    limit=rate.per_minute,
                    remaining=int(-early * rate.per_minute // _MINUTE_NS),
                    reset=(full_at - stamp) / 1e9,
                )
            )
        return None

    def take(self) -> None:
        """Take what :meth:`look` found there to be; under the same lock."""
        words = self._records.words
        for word, value in self._writes:
            words[word] = value

    def _members(self, base: int, own: int) -> int:
        """Note that the member of this record asks; how many did lately."""
        words = self._records.words
        epoch = self._stamp // _EPOCH_NS
        if words[base + A_EPOCH] != epoch:
            words[base + A_MEMBERS_BEFORE] = words[base + A_MEMBERS] if words[base + A_EPOCH] == epoch - 1 else 0
            words[base + A_MEMBERS] = 0
            words[base + A_EPOCH] = epoch
        if words[own + A_EPOCH] != epoch:
            words[own + A_EPOCH] = epoch
            words[base + A_MEMBERS] += 1
        words[own + A_TOUCHED] = self._stamp
        return max(1, words[base + A_MEMBERS], words[base + A_MEMBERS_BEFORE])
