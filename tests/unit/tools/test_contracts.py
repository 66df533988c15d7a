from __future__ import annotations

from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.tools.contracts import argument_problem, check_schema, hash_of, plain, schema_problem, stubbed_result
from lockgate.versions.model import ToolContract

ORDER = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"id": "A"}, None),
        ({"id": 7}, 'id: 7 is not of type "string"'),
        ({}, '"id" is a required property'),
        ({"id": "A", "x": 1}, "Additional properties"),
        ([], "must be a JSON object"),
        ("id", "must be a JSON object"),
    ],
)
def test_arguments_are_held_to_the_schema(arguments: Any, problem: str | None) -> None:
    found = argument_problem(ToolContract(name="t", input=ORDER), arguments)
    assert found is None if problem is None else problem in str(found)


def test_a_contract_without_schema_takes_any_object() -> None:
    assert argument_problem(ToolContract(name="t"), {"anything": 1}) is None


def test_the_hash_does_not_know_the_order_of_keys_but_every_value() -> None:
    assert hash_of({"a": 1, "b": [1, 2]}) == hash_of({"b": [1, 2], "a": 1})
    assert len({hash_of(v) for v in ({"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": None}, {}, {"a": [1]}, {"a": [2]})}) == 7


def test_plain_takes_text_of_a_frameworks_own_class() -> None:
    class Text(str):
        __slots__ = ()

    made = plain({"x": [Text("hi")], Text("y"): 1})
    assert made == {"x": ["hi"], "y": 1}
    assert {type(made["x"][0]), *map(type, made)} == {str}


def test_plain_refuses_what_json_cannot_carry() -> None:
    with pytest.raises(TypeError):
        plain({"x": object()})


@pytest.mark.parametrize(
    ("output", "stub"),
    [
        (None, {"status": "stubbed"}),
        ({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}, {"id": "A"}),
        (
            {
                "type": "object",
                "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 1}, "x": {}},
                "required": ["ok", "n"],
            },
            {"ok": False, "n": 1},
        ),
        ({"enum": ["sent", "queued"]}, "sent"),
        ({"type": "array"}, []),
        ({"const": 3}, 3),
    ],
)
def test_a_stub_fits_the_output_schema(output: dict[str, Any] | None, stub: Any) -> None:
    contract = ToolContract(name="t", output=output)
    found = stubbed_result(contract, {"id": "A"})
    assert found == stub
    assert output is None or schema_problem(output, found) is None


def test_a_schema_that_is_none_is_an_error_and_nothing_is_fetched() -> None:
    with pytest.raises(InputError, match=r"tools/x\.yaml"):
        check_schema({"type": "objec"}, "tools/x.yaml: input")
    with pytest.raises(InputError):
        check_schema({"$ref": "http://127.0.0.1:9/schema.json"}, "tools/x.yaml: input")
