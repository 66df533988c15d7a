"""Header fields as they leave, to clients and to upstreams."""

from __future__ import annotations

from collections.abc import Collection

Headers = list[tuple[str, str]]


def field_lines(fields: Collection[tuple[str, str]]) -> str:
    """The fields, a line each. Raises ValueError for one that would be more: a name or a value may be a caller's."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields) or "\0" in lines:
        raise ValueError("a header holds a line break or a zero byte")
    return lines
