"""How a case says what tools answer: ``metadata.fixtures`` of a golden set's line."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.errors import InputError


class Fixture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer to calls of ``tool`` whose arguments are these (and any others): a result, or an error."""

    tool: str
    arguments: dict[str, Any] | None = None
    result: Any = None
    error: str | None = None


def fixtures_of(given: Any) -> list[Fixture]:
    """What a case gives, as fixtures. Raises :class:`InputError` for other shapes: a misspelt key would let one answer
    calls that it is not for."""
    try:
        return msgspec.convert(given, list[Fixture])
    except msgspec.ValidationError as wrong:
        raise InputError(
            f"metadata.fixtures: {wrong}", remedy='give [{"tool": "read_orders", "arguments": {…}, "result": …}]'
        ) from None
