"""Reads the files people write: YAML 1.2 (core schema) and JSON, with a line number for every key.

The core schema means the same on every machine: ``no``, ``on`` and ``2026-05-21`` are text, ``1e3`` is 1000.0,
``<<`` is an ordinary key. What would be silently lost elsewhere is an error here: a duplicate key, a second
document, a key that is not text, a number JSON cannot carry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from lockgate.errors import InputError

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 4_000_000
MAX_NODES = 200_000  # aliases expand: a short file must not become an endless one
MAX_DEPTH = 64
MAX_INTEGER = 2**53  # beyond it JSON readers disagree

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CORE = "tag:yaml.org,2002:"


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
    return parse_yaml(read_text(path, shown_as=shown, limit=MAX_BYTES), shown)


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
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as wrong:
        near = text[wrong.pos : wrong.pos + 20].split("\n")[0]
        raise InputError(
            f"not valid JSON at column {wrong.colno}, near {near!r}: {wrong.msg}",
            path=shown,
            line=wrong.lineno,
            remedy="correct the JSON",
        ) from None
    except RecursionError:
        raise InputError("nested too deep", path=shown, remedy=f"at most {MAX_DEPTH} levels") from None


def read_text(path: Path, *, shown_as: str | None = None, limit: int = MAX_BYTES) -> str:
    """A text file as UTF-8 with LF line ends and no byte-order mark, whatever editor wrote it."""
    shown = shown_as or str(path)
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{size:,} bytes is more than a text part may have ({limit:,})", path=shown)
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


class _Node(NamedTuple):
    kind: str  # "map", "list" or "value"
    value: Any  # [(key node, node)…], [node…], or the scalar
    line: int


def parse_yaml(text: str, shown: str) -> Document:
    """Parse YAML text; ``shown`` names its source in messages."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        events = iter(list(YAML(typ="safe", pure=True).parse(text)))
    except MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        line = mark.line + 1 if mark else None
        written = text.split("\n")[mark.line].strip() if mark and mark.line < text.count("\n") + 1 else ""
        problem = (wrong.problem or wrong.context or "cannot be parsed").removeprefix("while ")
        raise InputError(
            f"not valid YAML: {problem}, in {written!r}",
            path=shown,
            line=line,
            remedy="check indentation, colons and quotes on this line and the one before",
        ) from None
    except YAMLError as wrong:
        raise InputError(f"not valid YAML: {str(wrong).splitlines()[0]}", path=shown) from None
    root = _Builder(events, shown).document()
    lines: dict[Location, int] = {}
    data = _to_data(root, (), lines, iter(range(MAX_NODES)), shown)
    return Document(shown, data, lines)


class _Builder:
    """Turns ruamel's events into nodes. Events, because only they tell ``!!str 1`` from ``1``."""

    def __init__(self, events: Iterator[Any], shown: str) -> None:
        self.events = events
        self.shown = shown
        self.anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        next(self.events)  # the stream starts
        if type(next(self.events)).__name__ == "StreamEndEvent":
            raise InputError("the file is empty", path=self.shown, line=1, remedy="see `lockgate schema --help`")
        node = self.node(next(self.events), 0)
        next(self.events)  # the document ends
        following = next(self.events)
        if type(following).__name__ != "StreamEndEvent":
            line = following.start_mark.line + 1
            raise InputError("a second YAML document", path=self.shown, line=line, remedy="one document a file")
        return node

    def node(self, event: Any, depth: int) -> _Node:
        line = event.start_mark.line + 1
        kind = type(event).__name__
        if depth > MAX_DEPTH:
            raise InputError("nested too deep", path=self.shown, line=line, remedy=f"at most {MAX_DEPTH} levels")
        if kind == "AliasEvent":
            if event.anchor not in self.anchors:
                raise InputError(f"no anchor {event.anchor!r} before this alias", path=self.shown, line=line)
            return self.anchors[event.anchor]._replace(line=line)
        if kind == "ScalarEvent":
            node = _Node("value", self.scalar(event, line), line)
        elif kind == "SequenceStartEvent":
            self.check_tag(event, "seq", line)
            items = []
            while type(item := next(self.events)).__name__ != "SequenceEndEvent":
                items.append(self.node(item, depth + 1))
            node = _Node("list", items, line)
        else:
            self.check_tag(event, "map", line)
            pairs: list[tuple[_Node, _Node]] = []
            seen: dict[Any, int] = {}
            while type(item := next(self.events)).__name__ != "MappingEndEvent":
                key = self.node(item, depth + 1)
                if not isinstance(key.value, str):
                    raise InputError(
                        f"the key {key.value!r} is not text" if key.kind == "value" else "a key that is not text",
                        path=self.shown,
                        line=key.line,
                        remedy="put it in quotes",
                    )
                if key.value in seen:
                    raise InputError(
                        f"the key {key.value!r} stands twice, first on line {seen[key.value]}",
                        path=self.shown,
                        line=key.line,
                        remedy="keep one of them",
                    )
                seen[key.value] = key.line
                pairs.append((key, self.node(next(self.events), depth + 1)))
            node = _Node("map", pairs, line)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def tag(self, event: Any) -> str:
        tag = getattr(event, "ctag", None) or event.tag
        return "" if tag is None else str(tag)

    def check_tag(self, event: Any, expected: str, line: int) -> None:
        tag = self.tag(event)
        if tag not in ("", "!", _CORE + expected):
            self.refuse_tag(tag, line)

    def refuse_tag(self, tag: str, line: int) -> NoReturn:
        shown = tag.replace(_CORE, "!!")
        raise InputError(f"the tag {shown!r} does not fit here", path=self.shown, line=line, remedy="remove the tag")

    def scalar(self, event: Any, line: int) -> Any:
        tag, text = self.tag(event), str(event.value)
        if tag in ("!", _CORE + "str") or (not tag and event.style):
            return text
        value = self.plain(text, line)
        if not tag:
            return value
        fits = {
            "null": value is None,
            "bool": isinstance(value, bool),
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
        }
        name = tag.removeprefix(_CORE)
        if not fits.get(name, False):
            self.refuse_tag(tag, line)
        return float(value) if name == "float" else value

    def plain(self, text: str, line: int) -> Any:
        """A plain scalar by the core schema (YAML 1.2.2, section 10.3.2)."""
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            if len(text) <= 17:
                number = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
                if abs(number) <= MAX_INTEGER:
                    return number
            raise InputError(
                f"{text[:40]} is too large", path=self.shown, line=line, remedy="quote it to keep it as text"
            )
        if _FLOAT.fullmatch(text):
            real = float(text)
            if real - real == 0:
                return real
            raise InputError(f"{text[:40]} is too large", path=self.shown, line=line, remedy="give a finite number")
        if _NOT_FINITE.fullmatch(text):
            raise InputError(
                f"{text} is not a finite number", path=self.shown, line=line, remedy="give a finite number"
            )
        return text


def _to_data(node: _Node, place: Location, lines: dict[Location, int], budget: Iterator[int], shown: str) -> Any:
    if next(budget, None) is None:
        raise InputError(f"more than {MAX_NODES:,} values", path=shown, line=node.line, remedy="use fewer aliases")
    lines.setdefault(place, node.line)
    if node.kind == "map":
        found = {}
        for key, value in node.value:
            lines[(*place, key.value)] = key.line
            found[key.value] = _to_data(value, (*place, key.value), lines, budget, shown)
        return found
    if node.kind == "list":
        return [_to_data(item, (*place, number), lines, budget, shown) for number, item in enumerate(node.value)]
    return node.value


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
