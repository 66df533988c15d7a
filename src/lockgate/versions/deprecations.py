"""Which models their publishers have said they will take away, and when. Pure.

The table that comes with Lockgate (``deprecation_table.py``) is dated; a project's own rows go over it:

```yaml
# deprecations.yaml, named by `deprecations:` in lockgate.yaml
models:
  gpt-4o-2024-08-06: {retires: 2027-04-14, replacement: gpt-6-luna, source: Azure's calendar}
  our-finetune-7: {retires: 2027-02-01}
  gemini-2.5-pro: null        # not for us
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from typing import Literal

import msgspec

from lockgate.versions.deprecation_table import COLLECTED, SOURCES, rows
from lockgate.versions.model import AgentVersion, Finding, ModelRef

SOON_DAYS = 30
"""So many days before the end, a warning becomes urgent."""

Urgency = Literal["announced", "soon", "retired"]


class Deprecation(msgspec.Struct, frozen=True, kw_only=True):
    """A model's announced end. ``source`` is the page that decides, ``collected`` the day of a bundled row (None: the
    project's own)."""

    model: str
    retires: date
    announced: date | None = None
    replacement: str = ""
    source: str = ""
    collected: date | None = None

    def days_left(self, today: date) -> int:
        """Days until the model is gone; 0 or less when it is."""
        return (self.retires - today).days

    def urgency(self, today: date) -> Urgency:
        """How much it matters today."""
        left = self.days_left(today)
        return "retired" if left <= 0 else "soon" if left <= SOON_DAYS else "announced"

    def message(self, today: date) -> str:
        """``the model 'gpt-5' is retired on 2026-12-11, in 20 days``."""
        left = self.days_left(today)
        if left <= 0:
            return f"the model {self.model!r} was retired on {self.retires.isoformat()}: calls to it may fail"
        days = f"in {left} day" + ("s" if left != 1 else "")
        return f"the model {self.model!r} is retired on {self.retires.isoformat()}, {days}"

    def remedy(self) -> str:
        """What to do, and where it stands."""
        to = f"move to {self.replacement}" if self.replacement else "choose another model"
        where = f" (the date stands in {self.source})" if self.source else ""
        return f"{to}, and gate the new version{where}"


Table = Mapping[str, Deprecation | None]
"""By model name. None: the project says that this row does not hold for it."""


@cache
def bundled() -> Table:
    """The table that comes with Lockgate."""
    return {
        name: Deprecation(
            model=name,
            retires=row.retires,
            announced=row.announced,
            replacement=row.replacement,
            source=SOURCES[row.publisher],
            collected=COLLECTED,
        )
        for row in rows()
        for name in row.names
    }


def deprecation_of(provider_kind: str, model: str, today: date, *, table: Table | None = None) -> Deprecation | None:
    """The announced end of this model, or None.

    ``model`` may carry its publisher (``openai/gpt-5``, ``models/gemini-2.5-pro``) or be a fine-tune
    (``ft:gpt-4o-2024-08-06:acme``), which goes when its base goes. Local weights never retire. An announcement
    that is later than ``today`` is not known yet.
    """
    if provider_kind == "local":
        return None
    own = {} if table is None else table
    name = model.removeprefix("ft:").split(":")[0] if model.startswith("ft:") else model.rsplit("/", 1)[-1]
    for candidate in dict.fromkeys((model, name)):
        if candidate in own:
            return own[candidate]
    found = bundled().get(name)
    return None if found is None or (found.announced is not None and found.announced > today) else found


def deprecated_models(
    version: AgentVersion, kinds: Mapping[str, str], today: date, *, table: Table | None = None
) -> list[tuple[ModelRef, Deprecation]]:
    """Every model of the version that has an announced end. ``kinds``: provider's name → its kind."""
    found = []
    for model in models_of(version):
        ends = deprecation_of(kinds.get(model.provider, "openai"), model.name, today, table=table)
        if ends is not None:
            found.append((model, ends))
    return found


def findings(deprecations: Iterable[Deprecation], today: date, *, path: str | None = None) -> list[Finding]:
    """One warning a model, the most urgent first."""
    ordered = sorted({one.model: one for one in deprecations}.values(), key=lambda one: (one.retires, one.model))
    return [Finding(kind="deprecation", message=one.message(today), path=path, remedy=one.remedy()) for one in ordered]


def models_of(version: AgentVersion) -> list[ModelRef]:
    """The version's model, its fallbacks and the one for easy cases."""
    return [version.model, *version.fallbacks, *([version.triage] if version.triage else [])]


def day(now: float) -> date:
    """The UTC day of a timestamp."""
    return datetime.fromtimestamp(now, UTC).date()
