"""Golden sets of other tools as cases. Each importer is a small file that yields rows in our field names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from lockgate.errors import InputError
from lockgate.evals.golden.importers import deepeval, inspect, promptfoo, ragas, tables, tau2
from lockgate.evals.golden.importers.rows import Row, Text, read_text, rows
from lockgate.evals.golden.jsonl import case_of
from lockgate.evals.model import Case

Format = Literal["auto", "table", "ragas", "deepeval", "promptfoo", "inspect", "tau2"]
FORMATS: tuple[str, ...] = get_args(Format)


class Imported(NamedTuple):
    """The cases of a foreign file, and in which format it was read."""

    format: str
    cases: list[Case]


def import_cases(
    path: Path,
    format: str = "auto",
    *,
    columns: Mapping[str, str] = {},
    input_var: str | None = None,
    world: str | None = None,
) -> Imported:
    """Every record of the file as a case: all of them, or an :class:`InputError` that names file and line."""
    if format not in FORMATS:
        raise InputError(f"no format {format!r}", remedy=f"known: {', '.join(FORMATS)}")
    if path.suffix == ".eval":
        format, found = "inspect", inspect.read_log(path)
    elif format == "promptfoo" or (format == "auto" and path.suffix in (".yaml", ".yml")):
        format, found = "promptfoo", promptfoo.read(path, input_var=input_var)
    else:
        file = read_text(path)
        if format == "auto":
            format = "table" if columns else _guess(file)
        found = _read(file, format, columns, input_var, world)
    cases: list[Case] = []
    first: dict[str, int] = {}
    for row in found:
        case = case_of(row.data, path=str(path), line=row.line)
        if case.id in first:
            raise InputError(
                f"the id {case.id!r} stands twice, first on line {first[case.id]}",
                path=path,
                line=row.line,
                remedy="give each record an id of its own (one without gets it from its input)",
            )
        first[case.id] = row.line
        cases.append(case)
    if not cases:
        raise InputError("no records in it", path=path, remedy="give a file with at least one")
    return Imported(format, cases)


def _read(
    file: Text, format: str, columns: Mapping[str, str], input_var: str | None, world: str | None
) -> Iterator[Row]:
    if format == "ragas":
        return ragas.read(file)
    if format == "deepeval":
        return deepeval.read(file)
    if format == "inspect":
        return inspect.read(file)
    if format == "tau2":
        return tau2.read(file, world)
    if format == "promptfoo":
        return promptfoo.read(Path(file.path), input_var=input_var)
    return tables.read(file, columns)


def _guess(file: Text) -> str:
    """By the columns of the first record."""
    first = next(rows(file, inside=("samples", "goldens", "testCases", "cases", "data", "tests", "examples")), None)
    columns = set(first.data) if first else set()
    if any(name.startswith("__expected") for name in columns):
        return "promptfoo"
    for name, importer in (("tau2", tau2), ("deepeval", deepeval), ("ragas", ragas), ("inspect", inspect)):
        if importer.looks_like(columns):
            return name
    return "table"
