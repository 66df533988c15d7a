"""CSV, TSV, JSON and JSONL with columns of any names: ``--map COLUMN=FIELD`` for those that are not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lockgate.evals.golden.importers.rows import Row, Text, listed, rows, structured
from lockgate.evals.golden.jsonl import ALIASES, FIELDS, RECORDED

LISTS = ("contexts", "reference_contexts", "must_not", "tags", "expected_tools")


def read(file: Text, columns: Mapping[str, str]) -> Iterator[Row]:
    """Columns of our names or the aliases; the others go to ``metadata``."""
    for row in rows(file, inside=("cases", "data", "examples", "rows", "samples", "tests")):
        yield Row(row.line, own_fields(row.data, columns))


def own_fields(data: Mapping[str, Any], columns: Mapping[str, str] = {}) -> dict[str, Any]:
    """The fields of a case among these, lists and objects read out of cells; the rest under ``metadata``."""
    found: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in data.items():
        name = columns.get(key, key)
        own = ALIASES.get(name, name)
        if own in RECORDED or own not in FIELDS:
            rest[name] = structured(value)
        elif own in LISTS:
            found[name] = listed(value)
        elif own == "weight":
            found[name] = _number(value)
        elif own in ("input", "expected_output", "labels", "metadata"):
            found[name] = structured(value)
        else:
            found[name] = value
    if rest:
        found["metadata"] = {**rest, **(found.get("metadata") or {})}
    return found


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
