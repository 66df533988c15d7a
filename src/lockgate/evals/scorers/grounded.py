"""grounded_fields: an extracted value stands in what it was extracted from."""

from __future__ import annotations

import re
from typing import Any

from lockgate.evals.scorers.fields import field_of
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_json, as_text, input_text, skip

_WORD = re.compile(r"[^\W_]+")


def grounded_fields(*, fields: list[str], ignore_null: bool = False) -> Scorer:
    """The share of named fields of a JSON answer whose value stands in the input, word for word.

    Case, white space and punctuation do not matter. A field that is absent or null is not grounded; with
    ``ignore_null`` it is left out.

    Range: 0..1. Needs: nothing. Source: our own definition.
    """

    def score(sample: Sample) -> Mark:
        try:
            answer = as_json(sample.output)
        except ValueError:
            return Mark(0.0, "the answer is not JSON")
        source = _words(input_text(sample.input))
        values = {name: value if _has_value(value := field_of(answer, name)) else None for name in fields}
        if ignore_null:
            values = {name: value for name, value in values.items() if value is not None}
        if not values:
            return skip("every field is null")
        loose = [f"{name}: {value!r}" for name, value in values.items() if not _stands_in(value, source)]
        return Mark(1 - len(loose) / len(values), f"not in the input: {'; '.join(loose)}"[:500] if loose else "")

    return score


def _has_value(value: Any) -> bool:
    return isinstance(value, str | int | float | list | dict)


def _stands_in(value: Any, source: str) -> bool:
    if value is None:
        return False
    if isinstance(value, list):
        return bool(value) and all(_stands_in(one, source) for one in value)
    wanted = _words(as_text(value))
    return bool(wanted.strip()) and wanted in source


def _words(text: str) -> str:
    return " " + " ".join(_WORD.findall(text.casefold())) + " "
