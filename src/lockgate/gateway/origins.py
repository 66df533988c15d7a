"""What a call counts for besides its caller and its model: said by headers, and by a run's token for its own calls.

``x-lockgate-session``, ``x-lockgate-task``, ``x-lockgate-labels`` and ``x-lockgate-tags`` (by commas). A run's calls
count for what its caller said, whatever headers they carry; headers of theirs add to that.
"""

from __future__ import annotations

from typing import Any, Literal

from lockgate.errors import InputError
from lockgate.gateway.model import Identity
from lockgate.gateway.routing.triage import TAGS, tags_of
from lockgate.runs import Origin

CACHE = "x-lockgate-cache"
MAX_NAME = 128
MAX_SESSION = 256
MAX_LABELS = 8
"""Labels of one call, and its tags."""
_SAID = ("x-lockgate-session", "x-lockgate-task", "x-lockgate-labels", TAGS)


def origin_of(headers: Any, identity: Identity) -> Origin:
    """What a call of this caller's counts for, or a run that it starts. Raises InputError for a header that says
    nothing."""
    run = identity.run
    above = Origin(key=identity.key_id, key_limits=identity.limits) if run is None else run.origin
    session, task, labels, tags = [headers.get(name) for name in _SAID]
    if session is None and task is None and labels is None and tags is None:
        return above
    return Origin(
        key=above.key,
        key_limits=above.key_limits,
        session=above.session or name_of("x-lockgate-session", session, MAX_SESSION),
        task=above.task or name_of("x-lockgate-task", task),
        labels=_several("x-lockgate-labels", [] if labels is None else labels.split(","), above.labels),
        tags=_several(TAGS, tags_of(tags), above.tags),
        cache=above.cache,
    )


def says_nothing(headers: Any) -> bool:
    """Whether no header says what a call counts for: then it counts for what its caller's others do."""
    said = headers.get
    return (
        said("x-lockgate-session") is None
        and said("x-lockgate-task") is None
        and said("x-lockgate-labels") is None
        and said(TAGS) is None
        and said("x-lockgate-agent") is None
        and said("x-lockgate-run") is None
    )


def cache_wish(headers: Any) -> Literal["", "bypass", "refresh"]:
    """``bypass``: neither look into the cache nor keep; ``refresh``: do not look, but keep. Raises InputError for
    another word: who mistypes one would be answered from the cache."""
    told, control = (headers.get(CACHE) or "").lower(), (headers.get("cache-control") or "").lower()
    if told in ("bypass", "off", "no-store") or "no-store" in control:
        return "bypass"
    if told not in ("", "refresh"):
        raise InputError(f"the header {CACHE!r} is {told[:80]!r}", remedy="send bypass or refresh")
    return "refresh" if told == "refresh" or "no-cache" in control else ""


def name_of(header: str, value: str | None, longest: int = MAX_NAME) -> str | None:
    """A caller's own name for something, as a header has it."""
    if value is not None and (not 0 < len(value) <= longest or not value.isprintable()):
        raise InputError(f"the header {header!r} is {value[:80]!r}", remedy=f"send 1 to {longest} printable characters")
    return value


def _several(header: str, given: list[str], above: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(sorted({name_of(header, one.strip()) or "" for one in given}.union(above)))
    if len(found) > MAX_LABELS:
        raise InputError(f"{header} has {len(found)} names", remedy=f"send at most {MAX_LABELS}")
    return found
