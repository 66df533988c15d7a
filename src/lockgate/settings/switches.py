"""The kill switch. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from lockgate.errors import Killed
from lockgate.settings.model import SELECTORS, Setting, Snapshot

_FLAGS = {"environment": "--env", "agent": "--agent", "tenant": "--tenant", "model": "--model"}
_NARROWEST_FIRST = ("model", "agent", "tenant", "environment")


def check(snapshot: Snapshot, *, environment: str, tenant: str, agents: Iterable[str] = (), model: str = "") -> None:
    """Raises :class:`Killed` when a switch covers this call. ``agents``: whoever has a part in it; each counts."""
    if not snapshot.all("kill"):
        return
    for agent in list(agents) or [""]:
        found = snapshot.find("kill", environment=environment, tenant=tenant, agent=agent, model=model)
        if found is not None:
            raise killed(found)


def killed(switch: Setting) -> Killed:
    """The refusal: what is off, since when, by whom, why, and how it is lifted."""
    scope = switch.scope
    lift = " ".join(f"{_FLAGS[name]} {getattr(scope, name)}" for name in SELECTORS if getattr(scope, name))
    since = datetime.fromtimestamp(switch.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    what = next((name for name in _NARROWEST_FIRST if getattr(scope, name)), "environment")
    return Killed(
        f"switched off ({scope}) by {switch.actor} at {since}: {switch.reason}",
        what=what,
        remedy=f"to lift it: lockgate settings unset kill {lift}",
    )
