"""CSV, TSV, JSON and JSONL with columns of any names: ``--map COLUMN=FIELD`` for those that are not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lockgate.evals.golden.importers.rows import Row, Text, listed, rows, structured
from lockgate.evals.golden.jsonl import ALIASES, FIELDS, RECORDED

LISTS = {"contexts": ";", "reference_contexts": ";", "must_not": ";", "tags": ";,", "expected_tools": ";,"}
"""Fields that are lists, and what stands between the parts in a cell: names have no commas, texts do."""


def read(file: Text, columns: Mapping[str, str]) -> Iterator[Row]:
    """Columns of our names or the aliases; the others go to ``metadata``."""
    for row in rows(file, inside=("cases", "data", "examples", "rows", "samples", "tests")):
        if "input" not in {ALIASES.get(name, name) for name in (columns.get(key, key) for key in row.data)}:
            there = ", ".join(map(repr, row.data)) or "nothing"
            file.wrong(row.line, f"no column is the input; there is {there}", "name it with --map COLUMN=input")
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
            found[name] = listed(value, LISTS[own])
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
