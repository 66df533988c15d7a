"""contains: the answer has the expected texts in it."""

from __future__ import annotations

from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text, normal


def contains(*, text: str | list[str] | None = None) -> Scorer:
    """The share of texts that stand in the answer, whatever their case.

    The texts are ``text``, or the case's expected_output (one, or a list). With ``text`` no case is needed.

    Range: 0..1. Needs: expected_output, or ``text``. Source: our own definition.
    """

    def score(sample: Sample) -> Mark:
        wanted = text
        if wanted is None:
            wanted = None if sample.case is None else sample.case.expected_output
        if wanted is None:
            return NO_EXPECTED
        texts = [as_text(one) for one in wanted] if isinstance(wanted, list) else [as_text(wanted)]
        answer = normal(as_text(sample.output))
        missing = [one for one in texts if normal(one) not in answer]
        return Mark(1 - len(missing) / len(texts) if texts else 1.0, f"missing {missing!r}" if missing else "")

    return score
