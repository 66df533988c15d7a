"""Reads the files people write: YAML 1.2 (core schema) and JSON, with a line number for every key.

Data is checked against a pydantic model, and what is wrong is one error: file, line, value, remedy.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from lockgate.errors import InputError
from lockgate.project.yamlcore import MAX_DEPTH, Location, parse

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 4_000_000
MAX_YAML_BYTES = 500_000  # the parser is thorough, not fast


class Document:
    """A file's data, and where each piece of it stands.

    ``path`` is shown in messages: relative to the project where possible.
    """

    def __init__(self, path: Path | str, data: Any, lines: dict[Location, int]) -> None:
        self.path = str(path)
        self.data = data
        self.lines = lines

    def line(self, location: Sequence[str | int]) -> int:
        """The 1-based line of the key at ``location``, or of the nearest thing around it."""
        place = tuple(location)
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, location: Sequence[str | int], message: str, *, remedy: str | None = None) -> InputError:
        """An error that points at ``location``, for the caller to raise."""
        return InputError(message, path=self.path, line=self.line(location), remedy=remedy)


def read_yaml(path: Path, *, shown_as: str | None = None) -> Document:
    """Read one YAML file. Raises :class:`InputError` with file and line for whatever is wrong in it."""
    shown = shown_as or str(path)
    return parse_yaml(read_text(path, shown_as=shown, limit=MAX_YAML_BYTES), shown)


def read_json(path: Path, *, shown_as: str | None = None) -> Any:
    """Read one JSON file, keys in the file's order. Duplicate keys and non-finite numbers are errors."""
    shown = shown_as or str(path)
    text = read_text(path, shown_as=shown, limit=MAX_BYTES)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                line = _line_of(text, f'"{key}"', occurrence=2)
                raise InputError(f"the key {key!r} stands twice", path=shown, line=line, remedy="keep one of them")
            found[key] = value
        return found

    def constant(name: str) -> NoReturn:
        raise InputError(f"{name} is not JSON", path=shown, line=_line_of(text, name), remedy="use a finite number")

    try:
        data = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as wrong:
        near = text[wrong.pos : wrong.pos + 20].split("\n")[0]
        raise InputError(
            f"not valid JSON at column {wrong.colno}, near {near!r}: {wrong.msg}",
            path=shown,
            line=wrong.lineno,
            remedy="correct the JSON",
        ) from None
    except RecursionError:
        data = None
    if data is None or _deeper(data, MAX_DEPTH):
        raise InputError("nested too deep", path=shown, line=1, remedy=f"at most {MAX_DEPTH} levels")
    half = re.search(r"\\u[dD][89a-fA-F]", text)  # escapes: the text itself is UTF-8
    if half is not None:
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            line = _line_of(text, half[0])
            raise InputError(
                "half a Unicode character", path=shown, line=line, remedy="write the character itself"
            ) from None
    return data


def _deeper(data: Any, levels: int) -> bool:
    layer = [data]
    for _ in range(levels):
        layer = [
            inner
            for item in layer
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return False
    return True


def read_text(path: Path, *, shown_as: str | None = None, limit: int = MAX_BYTES) -> str:
    """A text file as UTF-8 with LF line ends and no byte-order mark, whatever editor wrote it."""
    shown = shown_as or str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise InputError("not a regular file", path=shown, remedy="give a regular file")
        if status.st_size > limit:
            message = f"{status.st_size:,} bytes are more than such a file may have ({limit:,})"
            raise InputError(message, path=shown, remedy="make it smaller")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", path=shown, remedy="create it, or correct the path") from None
    except (IsADirectoryError, PermissionError) as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=shown, remedy="give a readable file") from None
    return decode_text(raw, shown)


def decode_text(raw: bytes, shown: str) -> str:
    """Bytes to text as :func:`read_text` does it."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = raw.count(b"\n", 0, wrong.start) + 1
        raise InputError(
            f"byte {raw[wrong.start]:#04x} is not UTF-8", path=shown, line=line, remedy="save the file as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, shown: str) -> Document:
    """Parse YAML text; ``shown`` names its source in messages."""
    return Document(shown, *parse(text, shown))


# --- checking data against a model ----------------------------------------------------------------------------


def validate(document: Document, model: type[Model]) -> Model:
    """The document as an instance of ``model``; raises :class:`InputError` for the first thing wrong in it."""
    try:
        return model.model_validate(document.data)
    except ValidationError as failure:
        raise explain(document, failure, model) from None


def explain(document: Document, failure: ValidationError, model: type[BaseModel], under: Location = ()) -> InputError:
    """One error from pydantic's many: the first by line, with its value and its remedy.

    ``under`` is where in the document the validated data stands.
    """
    problems = failure.errors(include_url=False)
    placed = []
    for problem in problems:
        inside = _in_data(document.data, under, problem["loc"])
        placed.append((document.line((*under, *inside)), -len(inside), problem))
    # A misspelt key is reported as itself, not as the one that is missing for it.
    _, _, first = min(placed, key=lambda found: (found[2]["type"] == "missing", found[0], found[1]))
    place = (*under, *_in_data(document.data, under, first["loc"]))
    message, remedy = _describe(first, place, document, model)
    more = len({line for line, _, _ in placed}) - 1
    if more:
        message += f" (and {more} more to correct)"
    return document.error(place, message, remedy=remedy)


def _in_data(data: Any, under: Location, location: Location) -> Location:
    """Pydantic's location without what is not in the file (names of union members and validators)."""
    for step in under:
        data = data[step]
    place: list[str | int] = []
    for step in location:
        inside_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if inside_list or (isinstance(data, dict) and step in data):
            data = data[step]
            place.append(step)
    return tuple(place)


def _describe(problem: Any, place: Location, document: Document, model: type[BaseModel]) -> tuple[str, str | None]:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx") or {}
    where = _dotted(place)
    if kind == "extra_forbidden":
        known = _keys_at(model, problem["loc"][:-1])
        name = str(problem["loc"][-1])
        inside = f" in {_dotted(place[:-1])}" if len(place) > 1 else ""
        return f"unknown key {name!r}{inside}", did_you_mean(name, known)
    if kind == "missing":
        name = str(problem["loc"][-1])
        given = ", ".join(map(repr, value)) if isinstance(value, dict) and value else "nothing"
        inside = f" in {where}" if place else ""
        return f"the key {name!r} is missing{inside} (it has {given})", f"add `{name}: …`"
    shown = _shown(value)
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected", ""))
        options = re.findall(r"'([^']*)'", expected)
        return f"{where} is {shown}, not {expected}", did_you_mean(str(value), options)
    if context.get("remedy"):
        return f"{where} is {shown}: {problem['msg']}", str(context["remedy"])
    what = _TYPES.get(kind)
    if what:
        return f"{where} is {shown}, not {what}", _type_remedy(value, what)
    return f"{where} is {shown}: {problem['msg']}", f"`{_dotted(place)}: …` must satisfy this"


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}


def _type_remedy(value: Any, what: str) -> str:
    if what == "text" and isinstance(value, int | float):
        return f'put it in quotes: "{value}"'
    if what == "true or false" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        return "write true or false: in YAML 1.2 yes, no, on and off are text"
    if what in ("a number", "a whole number") and isinstance(value, str):
        return "write the number without quotes or units"
    return f"give {what}"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The remedy for a misspelt name: the nearest known one, else all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(known))}" if known else "remove it"


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    current: type[BaseModel] | None = model
    for step in location:
        if current is None or not isinstance(step, str):
            continue
        field = current.model_fields.get(step)
        if field is not None:
            current = next(iter(_models_in(field.annotation)), None)
    return list(current.model_fields) if current else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _dotted(place: Location) -> str:
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the file"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _line_of(text: str, needle: str, occurrence: int = 1) -> int:
    position = -1
    for _ in range(occurrence):
        position = text.find(needle, position + 1)
    return text.count("\n", 0, max(position, 0)) + 1
