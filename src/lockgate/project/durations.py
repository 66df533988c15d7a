"""Durations as files write them: ``30s``, ``15m``, ``1h``, ``7d`` or a number of seconds; seconds from here on."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)")


def seconds(value: Any) -> Any:
    """``"1h"`` → 3600.0; numbers are seconds already.

    >>> seconds("1h"), seconds("90s"), seconds(12)
    (3600.0, 90.0, 12)
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise PydanticCustomError("duration", "not a duration", {"remedy": "write 30s, 15m, 1h or 7d"})
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("duration", "not a duration", {"remedy": "write 30s, 15m, 1h or 7d"})
    return value


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)$", "minimum": 0}),
]
