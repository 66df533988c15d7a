"""YAML 1.2, core schema, from ruamel's events: plain data, and the line each piece of it stands on.

The core schema means the same on every machine: ``no``, ``on`` and ``2026-05-21`` are text, ``1e3`` is 1000.0,
``<<`` is an ordinary key. What would be silently lost elsewhere is an error here: a duplicate key, a second
document, a key that is not text, a number JSON cannot carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from lockgate.errors import InputError

Location = tuple[str | int, ...]

MAX_NODES = 200_000  # aliases expand: a short file must not become an endless one
MAX_DEPTH = 64
MAX_INTEGER = 2**53 - 1  # beyond it JSON readers disagree

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CORE = "tag:yaml.org,2002:"


class _Node(NamedTuple):
    kind: str  # "map", "list" or "value"
    value: Any  # [(key node, node)…], [node…], or the scalar
    line: int


def parse(text: str, shown: str) -> tuple[Any, dict[Location, int]]:
    """The data, and the 1-based line of each key and item. ``shown`` names the source in messages."""
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
    return data, lines


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
        if not text.isascii() and any("\ud800" <= mark <= "\udfff" for mark in text):
            raise InputError(
                "half a Unicode character", path=self.shown, line=line, remedy="write the character itself"
            )
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
