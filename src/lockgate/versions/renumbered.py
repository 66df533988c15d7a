"""Another behaviour under a version number that already names one: said aloud, and refused once that one was deployed.

The digest is the identity, so no machine mixes them up. People say ``support@1``, though, and a number that served
behind a gate must go on meaning what served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lockgate.errors import Conflict
from lockgate.versions.model import Finding, LockedVersion


class Deployed(msgspec.Struct, frozen=True):
    """A behaviour that serves or served: under which number, and in which environments."""

    agent: str
    number: int
    places: tuple[str, ...]


class Renumbered(msgspec.Struct, frozen=True, kw_only=True):
    """One number whose behaviour changes. ``places``: where the old one serves, or served."""

    entry: LockedVersion
    before: str
    places: tuple[str, ...]

    @property
    def says(self) -> str:
        was, now = self.before.removeprefix("sha256:")[:12], self.entry.digest.removeprefix("sha256:")[:12]
        where = f" (deployed to {', '.join(self.places)})" if self.places else ""
        name = f"{self.entry.agent}@{self.entry.version}"
        return f"{name} was {was}{where}, and is {now} now: other behaviour under the same number"

    @property
    def remedy(self) -> str:
        return f"count `version` up in {self.entry.file}, to keep the two apart"


def renumbered(
    before: Iterable[LockedVersion],
    after: Sequence[LockedVersion],
    deployed: Mapping[str, Deployed],
) -> list[Renumbered]:
    """``deployed``: what was ever brought to an environment behind the gate, by digest.

    A digest that keeps another number of its agent is still named, so nothing is lost. A number that stands in no lock
    file any more is held against what was deployed under it.
    """
    was = {(one.agent, one.number): digest for digest, one in deployed.items()}
    was |= {(entry.agent, entry.version): entry.digest for entry in before}
    named = {(entry.agent, entry.digest) for entry in after}
    found = []
    for entry in after:
        old = was.get((entry.agent, entry.version))
        if old is not None and (entry.agent, old) not in named:
            places = deployed[old].places if old in deployed else ()
            found.append(Renumbered(entry=entry, before=old, places=places))
    return found


def warnings(found: Iterable[Renumbered]) -> list[Finding]:
    """One for each, with both digests."""
    return [Finding(kind="number", message=one.says, path=one.entry.file, remedy=one.remedy) for one in found]


def refuse(found: Iterable[Renumbered]) -> None:
    """Raises :class:`Conflict` for the first whose old behaviour was deployed."""
    for one in found:
        if one.places:
            raise Conflict(one.says, remedy=f"{one.remedy}; or `lockgate lock --same-number`")
