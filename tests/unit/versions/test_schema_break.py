"""What fits the old schema fits the new one, or the change is called breaking: by examples, and for any schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockgate.versions.schema_break import schema_break

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}


def shape(kind: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"kind": {"const": kind}, **properties},
        "required": ["kind", *properties],
    }


COMPATIBLE = {
    "an alternative more": ({"anyOf": [TEXT]}, {"anyOf": [TEXT, NUMBER]}),
    "alternatives in another order": ({"anyOf": [TEXT, NUMBER]}, {"anyOf": [NUMBER, TEXT]}),
    "one type becomes alternatives": (TEXT, {"anyOf": [TEXT, {"type": "null"}]}),
    "two types become alternatives": ({"type": ["string", "null"]}, {"anyOf": [TEXT, {"type": "null"}]}),
    "alternatives become two types": ({"anyOf": [TEXT, {"type": "null"}]}, {"type": ["string", "null"]}),
    "a oneOf that types tell apart": (TEXT, {"oneOf": [TEXT, NUMBER]}),
    "a tagged alternative more": (
        {"oneOf": [shape("a", x=TEXT)]},
        {"oneOf": [shape("a", x=TEXT), shape("b", y=NUMBER)]},
    ),
    "a reference written out": ({"$ref": "#/$defs/t", "$defs": {"t": TEXT}}, TEXT),
    "what is written out becomes a reference": (TEXT, {"$ref": "#/$defs/t", "$defs": {"t": TEXT}}),
    "a referenced schema is widened": (
        {"$ref": "#/$defs/t", "$defs": {"t": {"enum": ["a"]}}},
        {"$ref": "#/$defs/t", "$defs": {"t": {"enum": ["a", "b"]}}},
    ),
    "a tree stays a tree": (
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}, "v": TEXT}}}},
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}, "v": {}}}}},
    ),
    "bounds in two parts": ({"allOf": [{"minimum": 1}, {"maximum": 5}]}, {"minimum": 0, "maximum": 6}),
    "an exclusive bound becomes inclusive": ({"exclusiveMinimum": 0}, {"minimum": 0}),
    "an enum's values fit what is asked": (
        {"enum": ["ab", "abc"]},
        {"type": "string", "minLength": 2, "pattern": "^ab"},
    ),
    "an alternative that nothing can fit": ({"anyOf": [TEXT, False]}, TEXT),
    "a new optional property": (
        {"type": "object", "properties": {"a": TEXT}},
        {"type": "object", "properties": {"a": TEXT, "b": NUMBER}},
    ),
    "a map of narrower values": ({"additionalProperties": {"type": "integer"}}, {"additionalProperties": NUMBER}),
    "a description": (TEXT, {"type": "string", "description": "more words", "x-order": 1}),
    "an integer is a number": ({"type": "integer"}, NUMBER),
    "a multiple of six is one of three": ({"multipleOf": 6}, {"multipleOf": 3}),
}
BREAKING = {
    "an alternative less": ({"anyOf": [TEXT, NUMBER]}, {"anyOf": [TEXT]}, "the value fits none of the alternatives"),
    "a referenced schema is narrowed": (
        {"$ref": "#/$defs/t", "$defs": {"t": {"enum": ["a", "b"]}}},
        {"$ref": "#/$defs/t", "$defs": {"t": {"enum": ["a"]}}},
        "does not take 'b'",
    ),
    "a tree whose leaves are narrowed": (
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}, "v": {}}}}},
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}, "v": TEXT}}}},
        "v must be string",
    ),
    "one alternative is narrowed": (
        {"anyOf": [shape("a", x=TEXT), shape("b", x=TEXT)]},
        {"anyOf": [shape("a", x=NUMBER), shape("b", x=TEXT)]},
        "fits none",
    ),
    "alternatives that overlap": ({"type": "integer"}, {"oneOf": [{"type": "integer"}, NUMBER]}, "more than one"),
    "anyOf becomes oneOf": (
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "alternatives",
    ),
    "a part more": (TEXT, {"allOf": [TEXT, {"maxLength": 5}]}, "a tighter maxLength"),
    "something is forbidden": (TEXT, {"type": "string", "not": {"const": "a"}}, "another not"),
    "an inclusive bound becomes exclusive": ({"minimum": 0}, {"exclusiveMinimum": 0}, "tighter exclusiveMinimum"),
    "a const": (TEXT, {"const": "a"}, "has fewer values"),
    "items no more twice": ({"items": TEXT}, {"items": TEXT, "uniqueItems": True}, "no item twice"),
    "no property by another name": (
        {"properties": {"a": TEXT}, "additionalProperties": NUMBER},
        {"properties": {"a": TEXT}, "additionalProperties": False},
        "* is not taken",
    ),
    "a conditional": ({}, {"if": {"required": ["a"]}, "then": {"required": ["b"]}}, "another if"),
    "a required property without a schema": (
        {"type": "object", "required": ["a"]},
        {"type": "object", "properties": {"a": TEXT}},
        "a must be string",
    ),
}


@pytest.mark.parametrize("name", COMPATIBLE)
def test_what_surely_fits_is_compatible(name: str) -> None:
    old, new = COMPATIBLE[name]
    assert schema_break(old, new) is None


@pytest.mark.parametrize("name", BREAKING)
def test_what_may_not_fit_is_breaking_and_said(name: str) -> None:
    old, new, words = BREAKING[name]
    assert words in str(schema_break(old, new))


def test_a_reference_that_leads_nowhere_is_no_proof() -> None:
    assert "'#/$defs/none' cannot be compared" in str(schema_break({}, {"$ref": "#/$defs/none"}))


def test_what_is_too_large_is_not_called_compatible() -> None:
    many = {"allOf": [{"anyOf": [{"minimum": n}, {"maximum": n}]} for n in range(12)]}
    assert "cannot be compared" in str(schema_break(many, {"type": "number"}))


# --- any schemas --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b"])
LEAVES = st.one_of(
    st.just({}),
    st.sampled_from([{"type": one} for one in ("string", "number", "integer", "null", "boolean", "object", "array")]),
    st.builds(
        lambda kinds: {"type": kinds}, st.lists(st.sampled_from(["string", "integer", "null"]), min_size=1, unique=True)
    ),
    st.builds(
        lambda values: {"enum": values}, st.lists(st.sampled_from([0, 1, "x", "xy", None]), min_size=1, unique=True)
    ),
    st.builds(lambda value: {"const": value}, st.sampled_from([0, 1, "x", None, True])),
    st.builds(lambda low, high: {"minimum": low, "maximum": high}, st.integers(-1, 2), st.integers(0, 3)),
    st.builds(lambda low: {"exclusiveMinimum": low}, st.integers(-1, 2)),
    st.builds(lambda low: {"minLength": low}, st.integers(0, 2)),
    st.builds(lambda high: {"maxLength": high}, st.integers(0, 2)),
    st.builds(lambda of: {"multipleOf": of}, st.integers(1, 3)),
    st.just({"$ref": "#/$defs/d"}),
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda properties, required, closed: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                **({"additionalProperties": False} if closed else {}),
            },
            st.dictionaries(NAMES, inner, max_size=2),
            st.sets(NAMES),
            st.booleans(),
        ),
        st.builds(lambda items: {"items": items}, inner),
        st.builds(lambda values: {"additionalProperties": values}, inner),
        st.builds(
            lambda name, parts: {name: parts},
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda one, other: {**one, **other}, inner, inner),
        st.builds(lambda one: {"not": one}, inner),
    )


SCHEMAS = st.builds(
    lambda schema, named: {**schema, "$defs": {"d": named}},
    st.recursive(LEAVES, _grown, max_leaves=6),
    st.recursive(LEAVES, _grown, max_leaves=3),
)
SCALARS = st.sampled_from([None, True, False, -1, 0, 1, 2, 3, 0.5, "", "x", "xy", "xyz"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=4,
)


def is_named(value: Any, schemas: list[Any], root: Any) -> bool:
    """Whether the value keeps to the convention: no property that the schemas do not name where it stands."""
    said = list(_every_part(schemas, root))
    if isinstance(value, list):
        inner = [part["items"] for part in said if "items" in part]
        return all(is_named(one, inner, root) for one in value)
    if not isinstance(value, dict):
        return True
    names = {name for part in said for name in (*part.get("properties", {}), *part.get("required", ()))}
    others = [part["additionalProperties"] for part in said if isinstance(part.get("additionalProperties"), dict)]
    return all(
        (name in names or bool(others))
        and is_named(
            one, [part["properties"][name] for part in said if name in part.get("properties", {})] + others, root
        )
        for name, one in value.items()
    )


def _every_part(schemas: list[Any], root: Any) -> Iterator[dict[str, Any]]:
    for schema in schemas:
        if isinstance(schema, dict):
            yield schema
            further = [one for name in ("anyOf", "oneOf", "allOf") for one in schema.get(name, ())]
            yield from _every_part(further + ([root["$defs"]["d"]] if "$ref" in schema else []), root)


@given(SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=3, max_size=8))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_nothing_that_fitted_stops_fitting_unnoticed(old: Any, new: Any, values: list[Any]) -> None:
    if _refers_to_itself(old) or _refers_to_itself(new):
        return
    if schema_break(old, new) is not None:
        return
    before, after = jsonschema_rs.validator_for(old), jsonschema_rs.validator_for(new)
    for value in values:
        if before.is_valid(value) and is_named(value, [old], old):
            assert after.is_valid(value), value


def _refers_to_itself(schema: Any) -> bool:
    return "$ref" in repr(schema["$defs"])


@given(SCHEMAS)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_schema_is_compatible_with_itself_unless_its_alternatives_overlap(schema: Any) -> None:
    if _refers_to_itself(schema) or "oneOf" in repr(schema) or "anyOf" in repr(schema):
        return
    assert schema_break(schema, schema) is None


@given(SCHEMAS, SCHEMAS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_two_schemas_are_compared_without_an_error(old: Any, new: Any) -> None:
    assert schema_break(old, new) is None or isinstance(schema_break(old, new), str)
