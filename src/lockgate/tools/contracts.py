"""What a tool's contract asks of a call: arguments that fit its schema. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.versions.model import ToolContract

_ENCODER = msgspec.json.Encoder(order="sorted")


def hash_of(value: Any) -> str:
    """``sha256:<hex>`` of a JSON value, the same whatever the order of its keys."""
    return "sha256:" + hashlib.sha256(_ENCODER.encode(value)).hexdigest()


def plain(value: Any) -> Any:
    """The value as JSON carries it (a copy): what is recorded and replayed is exactly what was used.

    Raises :class:`TypeError` for what JSON cannot carry.
    """
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_as_text))


def _as_text(value: Any) -> str:
    """Text of a class of its own, as frameworks hand it out."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"JSON cannot carry {type(value).__name__!r}")


def schema_problem(schema: dict[str, Any], value: Any) -> str | None:
    """How ``value`` does not fit, first problem, e.g. ``order_id: 7 is not of type "string"``; None when it fits."""
    return schema_check(schema)(value)


def schema_check(schema: dict[str, Any]) -> Callable[[Any], str | None]:
    """:func:`schema_problem` of this schema, for many values."""
    validator = _validator(_ENCODER.encode(schema))
    is_valid = validator.is_valid  # only looks whether there is an error, and nearly never there is

    def problem_of(value: Any) -> str | None:
        return None if is_valid(value) else _first_problem(validator, value)

    return problem_of


def _first_problem(validator: Any, value: Any) -> str | None:
    for error in validator.iter_errors(value):
        place = ".".join(str(part) for part in error.instance_path)
        return f"{place}: {error.message}" if place else str(error.message)
    return None


def argument_problem(contract: ToolContract, arguments: Any) -> str | None:
    """What is wrong with a call's arguments, or None."""
    if not isinstance(arguments, dict):
        return f"arguments must be a JSON object, not {arguments!r}"
    return schema_problem(contract.input, arguments) if contract.input else None


def result_problem(contract: ToolContract, result: Any) -> str | None:
    """What is wrong with a tool's result, or None."""
    return schema_problem(contract.output, result) if contract.output is not None else None


def stubbed_result(contract: ToolContract, arguments: dict[str, Any]) -> Any:
    """A result for a call that was recorded and not carried out: the smallest that fits the output schema.

    Properties named like an argument repeat it, so that code reading them goes on as after a real call.
    """
    if not contract.output:
        return {"status": "stubbed"}
    return _example(contract.output, arguments)


def check_schema(schema: dict[str, Any], where: str) -> None:
    """Raises :class:`InputError` when ``schema`` is not a JSON Schema, or points outside itself."""
    import jsonschema_rs

    try:
        _validator(_ENCODER.encode(schema))
    except jsonschema_rs.ValidationError as error:
        raise InputError(
            f"{where} is not a JSON Schema: {error.message}",
            remedy="see https://json-schema.org/understanding-json-schema",
        ) from error


@lru_cache(maxsize=512)
def _validator(schema: bytes) -> Any:
    import jsonschema_rs  # by those that have a schema

    # Offline: a schema must not make the process fetch a URL that somebody wrote into it.
    return jsonschema_rs.validator_for(msgspec.json.decode(schema), offline=True)


def _example(schema: Any, arguments: dict[str, Any]) -> Any:
    if not isinstance(schema, dict):
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        names = [name for name in properties if name in schema.get("required", ()) or name in arguments]
        return {
            name: arguments[name]
            if name in arguments and schema_problem(properties[name], arguments[name]) is None
            else _example(properties[name], {})
            for name in names
        }
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"string": "stubbed", "boolean": False, "array": []}.get(str(kind))
