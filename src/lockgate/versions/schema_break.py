"""Whether everything that fits one JSON Schema fits another: what makes a change *compatible* or *breaking*. Pure.

The answer is on the safe side: "compatible" is only said of what surely is, and what cannot be compared is breaking.
One convention stands: whoever follows the old schema sends no property that it does not name, so that a new optional
property is compatible.

The old schema is taken apart into alternatives (``anyOf``, ``oneOf``), each a list of schemas that hold together
(``allOf``, ``$ref``); each alternative has to fit all of the new one. Keywords that are not understood have to be there
word for word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Schema = Any  # a mapping, or a boolean
Together = tuple[Schema, ...]

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_SPLIT = ("array", "boolean", "null", "number", "object", "string")
_ALTERNATIVES = 64
_STEPS = 20_000
_DEPTH = 40
_SAYS_NOTHING = frozenset(
    ("title", "description", "default", "examples", "format", "deprecated", "readOnly", "writeOnly", "$comment", "$id",
     "$schema", "$defs", "definitions", "$anchor", "contentMediaType", "contentEncoding")
)  # fmt: skip
_COMBINED = ("anyOf", "oneOf", "allOf", "$ref")
# bound: the type it is about, and whether a higher one is tighter
_BOUNDS = {
    "minimum": ("number", 1), "exclusiveMinimum": ("number", 1), "maximum": ("number", -1),
    "exclusiveMaximum": ("number", -1), "minLength": ("string", 1), "maxLength": ("string", -1),
    "minItems": ("array", 1), "maxItems": ("array", -1),
    "minProperties": ("object", 1), "maxProperties": ("object", -1),
}  # fmt: skip
_ABOUT = {
    "pattern": "string", "items": "array", "prefixItems": "array", "uniqueItems": "array", "contains": "array",
    "required": "object", "properties": "object", "additionalProperties": "object", "patternProperties": "object",
    "propertyNames": "object", "multipleOf": "number",
}  # fmt: skip


def schema_break(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> str | None:
    """Why a value that fits ``old`` may not fit ``new``; None when it surely does."""
    try:
        return _Comparison(old, new).fits((old,), new, place, 0)
    except _TooMuch as much:
        return f"{much} cannot be compared"


class _TooMuch(Exception):
    pass


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._same_names = _definitions(old) == _definitions(new)
        self._assumed: dict[str, None] = {}  # in order
        self._steps = 0

    def fits(self, olds: Together, new: Schema, place: str, depth: int) -> str | None:
        """Why what fits all of ``olds`` may not fit ``new``."""
        at = place or "the value"
        self._steps += 1
        if self._steps > _STEPS or depth > _DEPTH:
            raise _TooMuch(at)
        if new is True or new == {}:
            return None
        mark = json.dumps([olds, new], sort_keys=True, default=str)
        if mark in self._assumed:  # a schema that refers to itself: nothing against it was found on the way here
            return None
        self._assumed[mark] = None
        for alternative in self._alternatives(olds, at):
            found = self._alternative_fits(alternative, new, place, depth)
            if found is not None:
                while self._assumed.popitem()[0] != mark:  # what was found to fit since may have relied on it
                    pass
                return found
        return None

    # --- taking the old one apart -----------------------------------------------------------------------------

    def _alternatives(self, olds: Together, at: str) -> list[Together]:
        """The old schemas as alternatives of flat mappings; none when nothing fits them."""
        found: list[Together] = [()]
        for old in olds:
            parts = self._parts(old, at, 0)
            found = [(*before, *part) for before in found for part in parts]
            if len(found) > _ALTERNATIVES:
                raise _TooMuch(at)
        named = {name for one in found for name in _names(one)}
        if len(found) > 1 and named:  # what one alternative names may be sent with another, as anything
            found = [(*one, {"properties": dict.fromkeys(named - _names(one), True)}) for one in found]
        return [one for one in found if _kinds(one)]

    def _parts(self, schema: Schema, at: str, depth: int) -> list[Together]:
        if schema is True:
            return [()]
        if schema is False:
            return []
        if depth > _DEPTH:
            raise _TooMuch(at)
        flat = {name: value for name, value in schema.items() if name not in _COMBINED}
        found: list[Together] = [(flat,)]
        also = list(schema.get("allOf", ()))
        if "$ref" in schema:
            also.append(_resolved(self._old, schema["$ref"]))
        choices = [[one] for one in also]
        choices += [list(schema[name]) for name in ("anyOf", "oneOf") if name in schema]
        for branches in choices:
            parts = [part for branch in branches for part in self._parts(branch, at, depth + 1)]
            found = [(*before, *part) for before in found for part in parts]
            if len(found) > _ALTERNATIVES:
                raise _TooMuch(at)
        return found

    # --- one alternative against the new one ------------------------------------------------------------------

    def _alternative_fits(self, old: Together, new: Schema, place: str, depth: int) -> str | None:
        at = place or "the value"
        if new is False:
            return f"{at} is not taken any more"
        values = _values(old)
        if values is not None:
            return self._values_fit(values, old, new, at)
        kinds = _kinds(old)
        for name in new:
            if name in _SAYS_NOTHING or name.startswith("x-") or kinds.isdisjoint(_about(name)):
                continue
            found = self._keyword(name, old, new, place, depth)
            if found is not None:
                return found
        return None

    def _values_fit(self, values: Sequence[Any], old: Together, new: Schema, at: str) -> str | None:
        """Every value there is can be tried."""
        mine, theirs = _validator(old, self._old), _validator((new,), self._new)
        for value in values:
            if (mine is None or mine.is_valid(value)) and (theirs is None or not theirs.is_valid(value)):
                return f"{at} has fewer values" if "enum" in new or "const" in new else f"{at} does not take {value!r}"
        return None

    def _keyword(self, name: str, old: Together, new: Mapping[str, Any], place: str, depth: int) -> str | None:
        at, wanted = place or "the value", new[name]
        match name:
            case "type":
                allowed = _with_integers(wanted)
                return None if _kinds(old) <= allowed else f"{at} must be {' or '.join(sorted(allowed))}"
            case "enum" | "const":
                return f"{at} has fewer values"
            case "$ref":
                return self.fits(old, _resolved(self._new, wanted), place, depth + 1)
            case "allOf":
                return _first(self.fits(old, one, place, depth + 1) for one in wanted)
            case "anyOf":
                return self._any_of(old, wanted, place, depth)
            case "oneOf":
                return self._one_of(old, wanted, place, depth)
            case "required":
                given = {one for part in old for one in part.get("required", ())}
                missing = sorted(set(wanted) - given)
                return f"{_join(place, missing[0])} is required now" if missing else None
            case "properties":
                return self._properties(old, wanted, place, depth)
            case "additionalProperties":
                return self._additional(old, new, place, depth)
            case "items":
                return self._items(old, new, place, depth)
            case "pattern":
                return None if _said(old, name, wanted) else f"{at} has another pattern"
            case "multipleOf":
                fits = any(_is_multiple(part[name], wanted) for part in old if name in part)
                return None if fits else f"{at} must be a multiple of {wanted}"
            case "uniqueItems":
                return None if not wanted or _said(old, name, True) else f"{at} must have no item twice"
            case _ if name in _BOUNDS:
                return self._bound(name, old, wanted, at)
            case _:
                said = _said(old, name, wanted) and (self._same_names or "$ref" not in json.dumps(wanted))
                return None if said else f"{at} has another {name}"

    def _any_of(self, old: Together, branches: Sequence[Schema], place: str, depth: int) -> str | None:
        at = place or "the value"
        for one in _by_type(old):
            if not any(self.fits(one, branch, place, depth + 1) is None for branch in branches):
                return f"{at} fits none of the alternatives for sure"
        return None

    def _one_of(self, old: Together, branches: Sequence[Schema], place: str, depth: int) -> str | None:
        at = place or "the value"
        for one in _by_type(old):
            fitting = [n for n, branch in enumerate(branches) if self.fits(one, branch, place, depth + 1) is None]
            if not fitting:
                return f"{at} fits none of the alternatives for sure"
            others = (branch for n, branch in enumerate(branches) if n != fitting[0])
            if not all(self._disjoint(one, other, 0) for other in others):
                return f"{at} may fit more than one of the alternatives"
        return None

    def _disjoint(self, old: Together, new: Schema, depth: int) -> bool:
        """Whether surely nothing fits both."""
        if new is False:
            return True
        if new is True or depth > 4:
            return False
        if "$ref" in new:
            return self._disjoint(old, _resolved(self._new, new["$ref"]), depth + 1)
        parts = self._alternatives(old, "the value") if depth else [old]
        return all(self._alternative_is_disjoint(part, new, depth) for part in parts)

    def _alternative_is_disjoint(self, old: Together, new: Mapping[str, Any], depth: int) -> bool:
        if "type" in new and _kinds(old).isdisjoint(_with_integers(new["type"])):
            return True
        values = _values(old)
        theirs = _values((new,))
        if values is not None and theirs is not None:
            return not any(_equal(one, other) for one in values for other in theirs)
        if not _kinds(old) <= {"object"}:
            return False
        needed = {one for part in old for one in part.get("required", ())} & set(new.get("required", ()))
        named = new.get("properties", {})
        return any(self._disjoint(_property(old, name), named[name], depth + 1) for name in needed if name in named)

    def _properties(self, old: Together, wanted: Mapping[str, Schema], place: str, depth: int) -> str | None:
        for name, schema in wanted.items():
            if not _may_have(old, name):
                continue
            found = self.fits(_property(old, name), schema, _join(place, name), depth + 1)
            if found is not None:
                return found
        return None

    def _additional(self, old: Together, new: Mapping[str, Any], place: str, depth: int) -> str | None:
        wanted, named = new["additionalProperties"], new.get("properties", {})
        if wanted is True:
            return None
        known = {name for part in old for name in (*part.get("properties", {}), *part.get("required", ()))}
        patterns = new.get("patternProperties")
        for name in sorted(known - set(named)):
            if not _may_have(old, name) or (patterns and wanted is not False):
                continue
            if wanted is False:
                return f"{_join(place, name)} is unknown now"
            found = self.fits(_property(old, name), wanted, _join(place, name), depth + 1)
            if found is not None:
                return found
        if _is_map(old):
            return self.fits(_others(old), wanted, f"{place}.*" if place else "*", depth + 1)
        return None

    def _items(self, old: Together, new: Mapping[str, Any], place: str, depth: int) -> str | None:
        first = [one for part in old for one in part.get("prefixItems", ())]
        rest = tuple(part["items"] for part in old if "items" in part)
        wanted = new["items"]
        each = [(one,) for one in first if "prefixItems" not in new]
        return _first(self.fits(one, wanted, f"{place}[]", depth + 1) for one in (*each, rest))

    def _bound(self, name: str, old: Together, wanted: float, at: str) -> str | None:
        _, higher = _BOUNDS[name]
        inclusive = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
        exclusive = {other: one for one, other in inclusive.items()}
        for part in old:
            if name in part and (part[name] - wanted) * higher >= 0:
                return None
            if name in exclusive and exclusive[name] in part and (part[exclusive[name]] - wanted) * higher >= 0:
                return None
            if name in inclusive and inclusive[name] in part and (part[inclusive[name]] - wanted) * higher > 0:
                return None
        tame = name in ("minLength", "minItems", "minProperties") and wanted <= 0
        return None if tame else f"{at} has a tighter {name}"


# --- what the old schemas say together ----------------------------------------------------------------------------


def _kinds(old: Together) -> set[str]:
    kinds = set(_TYPES)
    for part in old:
        if "type" in part:
            kinds &= _with_integers(part["type"])
    return kinds


def _with_integers(kind: Any) -> set[str]:
    kinds = {kind} if isinstance(kind, str) else set(kind)
    return kinds | {"integer"} if "number" in kinds else kinds


def _about(name: str) -> set[str]:
    about = _BOUNDS[name][0] if name in _BOUNDS else _ABOUT.get(name)
    return set(_TYPES) if about is None else _with_integers(about)


def _values(old: Together) -> list[Any] | None:
    """The only values there can be, when the schemas name them."""
    for part in old:
        if "const" in part:
            return [part["const"]]
        if "enum" in part:
            return list(part["enum"])
    return [None] if _kinds(old) == {"null"} else None


def _by_type(old: Together) -> Iterator[Together]:
    """The schemas for one type at a time: alternatives are often told apart by it."""
    for kind in _SPLIT:
        narrowed = (*old, {"type": kind})
        if _kinds(narrowed):
            yield narrowed


def _names(old: Together) -> set[str]:
    return {name for part in old for name in part.get("properties", {})}


def _property(old: Together, name: str) -> Together:
    """What holds of a property, if it is there."""
    found: list[Schema] = []
    for part in old:
        named = part.get("properties", {})
        if name in named:
            found.append(named[name])
        elif "patternProperties" not in part and "additionalProperties" in part:
            found.append(part["additionalProperties"])
    return tuple(found)


def _may_have(old: Together, name: str) -> bool:
    """Whether one who follows the schemas may send it: it is named, or names are free by a schema of their own."""
    named = any(name in part.get("properties", {}) or name in part.get("required", ()) for part in old)
    return (named or _is_map(old)) and False not in _property(old, name)


def _is_map(old: Together) -> bool:
    free = any(isinstance(part.get("additionalProperties"), Mapping) or "patternProperties" in part for part in old)
    return free and not any(
        part.get("additionalProperties") is False and "patternProperties" not in part for part in old
    )


def _others(old: Together) -> Together:
    """What holds of properties that are not named."""
    if any("patternProperties" in part for part in old):
        return ()
    return tuple(part["additionalProperties"] for part in old if "additionalProperties" in part)


def _said(old: Together, name: str, wanted: Any) -> bool:
    return any(name in part and _equal(part[name], wanted) for part in old)


def _equal(one: Any, other: Any) -> bool:
    """As JSON: 1 is 1.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    return bool(one == other)


def _is_multiple(one: float, of: float) -> bool:
    return (isinstance(one, int) and isinstance(of, int) and of != 0 and one % of == 0) or one == of


def _validator(schemas: Together, root: Schema) -> Any:
    """A validator of all of them; None when one refers to what cannot be carried over."""
    import jsonschema_rs

    names = _definitions(root)
    if '"$ref": "#"' in json.dumps(schemas):
        return None
    try:
        return jsonschema_rs.validator_for({**names, "allOf": list(schemas)})
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
        return None


def _definitions(root: Schema) -> dict[str, Any]:
    return {name: root[name] for name in ("$defs", "definitions") if isinstance(root, Mapping) and name in root}


def _resolved(root: Schema, reference: Any) -> Schema:
    """What ``#/a/b`` names; a schema that fits nothing and everything alike when it cannot be found."""
    value = root
    for step in str(reference).removeprefix("#").strip("/").split("/"):
        if not step:
            continue
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            raise _TooMuch(f"the reference {reference!r}")
    return value


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
