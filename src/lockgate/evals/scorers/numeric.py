"""numeric_match: a number near the expected one."""

from __future__ import annotations

import re
from typing import Any

from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")


def numeric_match(*, tolerance: float = 0.0, relative: float = 0.0) -> Scorer:
    """1 when the answer's last number is within ``tolerance``, or ``relative`` × expected, of the expected one.


    Range: 0 or 1. Needs: an expected_output that is, or ends with, a number. Source: GSM8K's last-number rule.
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        expected = _last_number(sample.case.expected_output)
        if expected is None:
            return Mark(None, "the expected_output has no number", "skipped")
        answer = _last_number(sample.output)
        if answer is None:
            return Mark(0.0, "no number in the answer")
        near = abs(answer - expected) <= max(tolerance, relative * abs(expected), 1e-12)
        return Mark(float(near), "" if near else f"{answer:g}, not {expected:g}")

    return score


def _last_number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _NUMBER.findall(as_text(value))
    return float(found[-1].replace(",", "")) if found else None
