"""The fallback slice: a small part of the golden set on the backup model, before the day it is needed. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.evals.model import Case

WEEK = 7 * 86_400.0
TRY_AGAIN = 3600.0
"""Seconds until a slice that came to no verdict is tried again."""


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """``evals.fallback`` of an agent file."""

    every: float = WEEK
    environment: str = "prod"
    model: str | None = None  # provider:name; None: the first of model.fallbacks
    tag: str | None = None  # cases with this tag; None: `cases` of all
    cases: int = 20
    max_usd: float | None = None


def fallback_of(evals: Mapping[str, Any]) -> Fallback | None:
    """What an ``evals`` block says of it; None when it does not."""
    given = evals.get("fallback")
    return None if given is None else msgspec.convert({k: v for k, v in given.items() if v is not None}, Fallback)


def slice_of(cases: Sequence[Case], wanted: Fallback) -> list[Case]:
    """The cases of the slice: those with its tag, or about so many of all, the same every time.

    Cases are taken by the digest of their id, so that a golden set that grows changes few of them.
    Raises :class:`InputError` when no case has the tag.
    """
    tagged = [case for case in cases if wanted.tag is None or wanted.tag in case.tags]
    if not tagged:
        known = sorted({tag for case in cases for tag in case.tags})
        raise InputError(
            f"evals.fallback: no case has the tag {wanted.tag!r}", remedy=f"tags: {', '.join(known) or 'none'}"
        )
    if wanted.tag is not None:
        return tagged
    chosen = set(sorted((case.id for case in cases), key=_place)[: wanted.cases])
    return [case for case in cases if case.id in chosen]


def due(wanted: Fallback, now: float, last_started: float | None, last_verdict: str | None) -> bool:
    """Whether the slice is to be run now. One that came to no verdict is tried again after an hour."""
    if last_started is None:
        return True
    return now >= last_started + (wanted.every if last_verdict is not None else min(wanted.every, TRY_AGAIN))


def _place(id: str) -> bytes:
    return hashlib.sha256(id.encode()).digest()
