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
from lockgate.limits.records import (
    A_EPOCH,
    A_GENERATION,
    A_MEMBERS,
    A_MEMBERS_BEFORE,
    FIGURES_AT,
    Change,
    Records,
    figures,
)

_EPOCH_NS = 60_000_000_000
_MINUTE_NS = 60_000_000_000
_KNOWN = 8192  # rates a process remembers the places of

_Place = tuple[int, int, int, int, int, int]
"""Of a rate: the word of its bucket's generation and what that was, the same of its member's record (its bucket's again
where no member is named), and the bases of both."""

Refusal = tuple[Rate, float, bool]
"""The rate, the seconds until it may pass (below 0: never), and whether only the member's share was used up."""


class Buckets:
    """The buckets of one table."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._known: dict[Rate, _Place] = {}

    def look(
        self, rates: Sequence[Rate], tokens: int, stamp: int, parts: list[int], changes: list[Change]
    ) -> list[Standing] | Refusal:
        """What a call wants from its buckets: the first that has not enough; else how each of them will stand, and
        what is to be held and changed for it is added to ``parts`` and ``changes``. Call under the table's lock."""
        words, raw, known = self._records.words, self._records.raw, self._known
        standings = []
        for rate in rates:
            place = known.get(rate)
            if place is None or words[place[0]] != place[1] or words[place[2]] != place[3]:
                place = self._find(rate)
            _, _, _, _, base, own = place
            per_minute = rate.per_minute
            amount = tokens if rate.unit == "tokens" else 1
            cost = int(amount * _MINUTE_NS / per_minute)
            epoch, full_at, held, open_holds, members, members_before = figures(raw, base * 8 + FIGURES_AT)
            full_in = full_at - stamp + cost if full_at > stamp else cost
            if own != base:
                own_epoch, free_at, own_held, own_open, _, _ = figures(raw, own * 8 + FIGURES_AT)
                now_epoch = stamp // _EPOCH_NS
                if epoch != now_epoch or own_epoch != now_epoch:
                    members, members_before = self._note(base, own, now_epoch)
            if amount > per_minute:
                return rate, -1.0, False
            early = full_in - _MINUTE_NS
            if early > 0:
                return rate, early / 1e9, False
            if own != base:
                active = members if members > members_before else members_before
                wanted = cost * active if active > 1 else cost
                if free_at > stamp:
                    wanted += free_at - stamp
                    if active > 1 and full_in > _MINUTE_NS // 2 and wanted > _MINUTE_NS:
                        return rate, (wanted - _MINUTE_NS) / 1e9, True
                changes.append((own, stamp + min(wanted, _MINUTE_NS), own_held, own_open))
            changes.append((base, stamp + full_in, held + cost, open_holds + 1))
            parts += (base, cost)
            standings.append(
                Standing(
                    name=rate.name,
                    unit=rate.unit,
                    limit=per_minute,
                    remaining=int(-early * per_minute // _MINUTE_NS),
                    reset=full_in / 1e9,
                )
            )
        return standings

    def _find(self, rate: Rate) -> _Place:
        records, unit = self._records, "token_rate" if rate.unit == "tokens" else "rate"
        base = records.account(unit, rate.name, "")
        own = records.account(unit, rate.name, rate.member) if rate.member else base
        generations = base + A_GENERATION, own + A_GENERATION
        place = (
            generations[0],
            records.words[generations[0]],
            generations[1],
            records.words[generations[1]],
            base,
            own,
        )
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[rate] = place
        return place

    def _note(self, base: int, own: int, epoch: int) -> tuple[int, int]:
        """Note that the member of this record asks; how many did in this minute, and in the one before."""
        words = self._records.words
        if words[base + A_EPOCH] != epoch:
            words[base + A_MEMBERS_BEFORE] = words[base + A_MEMBERS] if words[base + A_EPOCH] == epoch - 1 else 0
            words[base + A_MEMBERS] = 0
            words[base + A_EPOCH] = epoch
        if words[own + A_EPOCH] != epoch:
            words[own + A_EPOCH] = epoch
            words[base + A_MEMBERS] += 1
        return words[base + A_MEMBERS], words[base + A_MEMBERS_BEFORE]
