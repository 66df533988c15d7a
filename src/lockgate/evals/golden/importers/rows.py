"""Rows of a foreign file with the line each begins on: JSON, JSONL and CSV."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lockgate.errors import InputError


class Row(NamedTuple):
    """One record, and the line (1-based) it begins on."""

    line: int
    data: dict[str, Any]


class Text(NamedTuple):
    """A foreign file, read."""

    path: str
    text: str

    def wrong(self, line: int | None, message: str, remedy: str) -> NoReturn:
        raise InputError(message, path=self.path, line=line, remedy=remedy)


def read_text(path: Path) -> Text:
    """The file as UTF-8. Raises :class:`InputError`."""
    try:
        return Text(str(path), path.read_bytes().decode("utf-8-sig"))
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=path, remedy="give a readable file") from None
    except UnicodeDecodeError as failure:
        raise InputError(
            f"byte {failure.object[failure.start]:#04x} at {failure.start:,} is not UTF-8",
            path=path,
            remedy="save the file as UTF-8",
        ) from None


def rows(file: Text, *, inside: tuple[str, ...] = ()) -> Iterator[Row]:
    """The records of a CSV, JSONL or JSON file; in a JSON object they stand under one of the keys ``inside``."""
    if file.path.endswith(".csv") or file.path.endswith(".tsv"):
        return csv_rows(file, delimiter="\t" if file.path.endswith(".tsv") else ",")
    if file.path.endswith(".jsonl"):
        return jsonl_rows(file)
    return json_rows(file, inside=inside)


def jsonl_rows(file: Text) -> Iterator[Row]:
    for number, line in enumerate(file.text.split("\n"), start=1):
        if line.strip():
            yield Row(number, _record(file, number, _parse(file, line, number)))


def json_rows(file: Text, *, inside: tuple[str, ...] = ()) -> Iterator[Row]:
    """The objects of a top-level list, each with its own line."""
    decoder, text = json.JSONDecoder(parse_constant=_refuse), file.text
    at = _skip(text, 0)
    if at < len(text) and text[at] == "{":
        whole = _parse(file, text, 1)
        key = next((key for key in inside if isinstance(whole.get(key), list)), None)
        if key is None:
            file.wrong(1, f"an object with {', '.join(map(repr, whole))}", "give a list of records")
        for item in whole[key]:
            yield Row(1, _record(file, 1, item))
        return
    if at >= len(text) or text[at] != "[":
        file.wrong(1, f"neither a list nor an object: {text[:30]!r}", "give a JSON list of records")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        line = text.count("\n", 0, at) + 1
        try:
            item, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, ValueError) as failure:
            column = getattr(failure, "colno", 1)
            wrong_line = getattr(failure, "lineno", line)
            near = text[getattr(failure, "pos", at) : getattr(failure, "pos", at) + 20]
            file.wrong(wrong_line, f"not valid JSON at column {column}, near {near!r}", "correct the file")
        yield Row(line, _record(file, line, item))
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            here = text.count("\n", 0, at) + 1
            file.wrong(here, f"not valid JSON near {text[at : at + 20]!r}", "the list is not closed: correct the file")


def csv_rows(file: Text, *, delimiter: str = ",") -> Iterator[Row]:
    """A dictionary a row; empty cells are absent."""
    reader = csv.reader(io.StringIO(file.text), delimiter=delimiter, strict=True)
    begins = 1
    try:
        header = next(reader, [])
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            file.wrong(1, f"the column {twice!r} stands twice", "keep one of them")
        begins = reader.line_num + 1
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) != len(header):
                file.wrong(
                    line, f"{len(cells)} cells, and the header has {len(header)}: {cells!r:.60}", "quote commas in text"
                )
            yield Row(line, {name.strip(): cell for name, cell in zip(header, cells, strict=True) if cell != ""})
    except csv.Error as failure:
        file.wrong(begins, f"not valid CSV: {failure}", "quote cells that hold commas, quotes or line breaks")


def listed(value: Any, separators: str = ";") -> Any:
    """A list in a cell: JSON, as Python prints one, or parts between ``separators``. What is no text stays as it
    is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        found = structured(text)
        if isinstance(found, list):
            return found
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [value]
        return found if isinstance(found, list) else [value]
    return [part.strip() for part in re.split(f"[{re.escape(separators)}]", text) if part.strip()]


def structured(value: Any) -> Any:
    """The JSON object or list in a cell, or the cell as it is."""
    if not isinstance(value, str) or not value.strip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value, parse_constant=_refuse)
    except ValueError:
        return value


def _parse(file: Text, text: str, line: int) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as failure:
        near = text[max(0, failure.pos - 10) : failure.pos + 20].strip()
        at = line + failure.lineno - 1
        file.wrong(at, f"not valid JSON at column {failure.colno}, near {near!r}: {failure.msg}", "correct the line")
    except ValueError as failure:
        file.wrong(line, str(failure), "correct the line")


def _record(file: Text, line: int, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        file.wrong(line, f"{item!r:.60} is not a record", "give objects")
    return item


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
