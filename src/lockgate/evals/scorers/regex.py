"""regex: the answer matches a pattern."""

from __future__ import annotations

import re

from lockgate.errors import InputError
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text


def regex(*, pattern: str, whole: bool = False) -> Scorer:
    """1 when ``pattern`` is found in the answer (``whole``: matches all of it), else 0.

    Range: 0 or 1. Needs: nothing. Source: Python's regular expressions.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as wrong:
        raise InputError(f"pattern {pattern!r} is not a regular expression: {wrong}", remedy="correct it") from None
    find = compiled.fullmatch if whole else compiled.search

    def score(sample: Sample) -> Mark:
        return Mark(float(find(as_text(sample.output)) is not None))

    return score
