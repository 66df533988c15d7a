"""What the workers of a machine tell one another of breakers: each leaves a file, and reads those of the others.

A worker that found an upstream or an agent failing spares the others to find out for themselves. What they tell is
few and short, and is looked at by the thread that follows the store: no call waits for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

What = tuple[str, ...]
"""``("upstream", environment, provider, upstream)`` or ``("agent", environment, agent)``."""

Heard = Callable[[What, bool, float], object]
"""``heard(what, is_open, at)``: again and again while it is open, once when it is not. From a thread of its own."""


class _Told(msgspec.Struct, array_like=True, frozen=True):
    """One breaker opened or closed, ``at`` so many seconds of the clock that all processes of a machine share."""

    what: What
    is_open: bool
    at: float


class _File(msgspec.Struct, frozen=True):
    family: int  # process id of the supervisor: what an earlier one's workers told is no news
    told: list[_Told]


class Siblings:
    """One worker among others. ``index`` is its place, kept on a respawn."""

    def __init__(self, folder: Path, index: int, heard: Heard) -> None:
        self._folder = folder
        self._path = folder / f"{index}.json"
        self._heard = heard
        self._own: dict[What, _Told] = {}
        self._known: dict[What, _Told] = {}
        self._read: dict[Path, tuple[int, list[_Told]]] = {}

    def tell(self, what: What, is_open: bool) -> None:
        """One of this worker's breakers opened or closed."""
        self._own[what] = _Told(what, is_open, time.monotonic())
        told = list(self._own.values())
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(_File(os.getppid(), told)))
            draft.replace(self._path)
        except OSError as failure:
            log.warning("the other workers cannot be told of a breaker: %s", failure)

    def look(self) -> None:
        """Hear what the others told, this worker's former self among them."""
        newest: dict[What, _Told] = {}
        for path in self._folder.glob("*.json"):
            for one in self._told_in(path):
                if one.what not in newest or newest[one.what].at < one.at:
                    newest[one.what] = one
        for what, one in newest.items():
            own = self._own.get(what)
            if own is not None and own.at >= one.at:
                continue
            is_news = self._known.get(what) != one
            self._known[what] = one
            if is_news:
                log.info("another worker told: %s %s", " ".join(what), "keeps failing" if one.is_open else "is back")
            if one.is_open or is_news:
                self._heard(what, one.is_open, one.at)

    def _told_in(self, path: Path) -> list[_Told]:
        try:
            changed = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != changed:
                found = msgspec.json.decode(path.read_bytes(), type=_File)
                known = self._read[path] = changed, found.told if found.family == os.getppid() else []
        except (OSError, msgspec.DecodeError):  # being replaced, or another version's
            return []
        return known[1]


def left_open(folder: Path) -> list[What]:
    """The breakers that the workers of before had open when they ended; what they told is gone after that."""
    last: dict[What, _Told] = {}
    for path in folder.glob("*.json"):
        try:
            told = msgspec.json.decode(path.read_bytes(), type=_File).told
        except (OSError, msgspec.DecodeError):
            told = []
        for one in told:
            if one.what not in last or last[one.what].at < one.at:
                last[one.what] = one
        path.unlink(missing_ok=True)
    return [what for what, one in last.items() if one.is_open]
