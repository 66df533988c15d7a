"""exact_match: the answer is the expected one."""

from __future__ import annotations

from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_json, as_text, normal


def exact_match(*, ignore_case: bool = True) -> Scorer:
    """1 when the answer equals ``expected_output``, else 0.

    JSON is compared as values; text without differences of white space and, by default, of case.

    Range: 0 or 1. Needs: expected_output. Source: exact match, as everywhere.
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        expected = sample.case.expected_output
        if not isinstance(expected, str):
            try:
                return Mark(float(as_json(sample.output) == expected))
            except ValueError:
                return Mark(0.0, "the answer is not JSON")
        answer = as_text(sample.output)
        if ignore_case:
            return Mark(float(normal(answer) == normal(expected)))
        return Mark(float(answer.split() == expected.split()))

    return score
