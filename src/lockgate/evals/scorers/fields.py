"""field_match: a JSON answer, field by field."""

from __future__ import annotations

from typing import Any

from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_json, normal

_ABSENT = object()


def field_match(*, fields: list[str] | None = None, tolerance: float = 1e-9) -> Scorer:
    """The share of expected fields that the answer has right.

    ``fields`` names them, dots for nesting; absent: those of the expected_output. Text is compared without differences
    of case and white space, numbers within ``tolerance``. ``field_match.NAME`` is the metric of one field alone.
    Cases that expect none of the fields are skipped.

    Range: 0..1. Needs: an expected_output that is an object. Source: our own definition.
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        try:
            expected = as_json(sample.case.expected_output)
        except ValueError:
            expected = None
        if not isinstance(expected, dict):
            return Mark(None, "the expected_output is not an object", "skipped")
        names = [name for name in fields or expected if field_of(expected, name) is not _ABSENT]
        if not names:
            return Mark(
                None, f"the case does not say what {', '.join(fields or ()) or 'any field'} should be", "skipped"
            )
        try:
            answer = as_json(sample.output)
        except ValueError:
            return Mark(0.0, "the answer is not JSON")
        wrong = []
        for name in names:
            got, want = field_of(answer, name), field_of(expected, name)
            if not same(got, want, tolerance):
                wrong.append(f"{name} is absent" if got is _ABSENT else f"{name}: {got!r}, not {want!r}")
        return Mark(1 - len(wrong) / len(names), "; ".join(wrong)[:500])

    return score


def field_of(value: Any, name: str) -> Any:
    """The value at a dotted name, or a marker that equals nothing."""
    if isinstance(value, dict) and name in value:
        return value[name]
    for step in name.split("."):
        if not isinstance(value, dict) or step not in value:
            return _ABSENT
        value = value[step]
    return value


def same(left: Any, right: Any, tolerance: float = 1e-9) -> bool:
    """Whether two JSON values mean the same."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return abs(left - right) <= tolerance
    if isinstance(left, str) and isinstance(right, str):
        return normal(left) == normal(right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key], tolerance) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b, tolerance) for a, b in zip(left, right, strict=True))
    return left is None and right is None
