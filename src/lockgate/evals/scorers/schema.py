"""schema_valid: the answer satisfies a JSON Schema."""

from __future__ import annotations

from typing import Any

from lockgate.errors import InputError
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_json


def schema_valid(*, schema: dict[str, Any]) -> Scorer:
    """1 when the answer is JSON and valid under ``schema`` (in a rubric: a path, or the schema).

    Range: 0 or 1. Needs: nothing. Source: JSON Schema, by the package jsonschema-rs.
    """
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ValidationError) as wrong:
        raise InputError(f"not a JSON Schema: {str(wrong).splitlines()[0]}", remedy="correct the schema") from None

    def score(sample: Sample) -> Mark:
        try:
            answer = as_json(sample.output)
        except ValueError:
            return Mark(0.0, "the answer is not JSON")
        first = next(iter(validator.iter_errors(answer)), None)
        return Mark(1.0) if first is None else Mark(0.0, first.message[:500])

    return score
