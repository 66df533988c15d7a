"""bleu: shared runs of one to four words."""

from __future__ import annotations

from lockgate.evals.scorers.extras import load
from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text


def bleu(*, lowercase: bool = True) -> Scorer:
    """Sentence BLEU of the answer against the expected output, or a list of them, over 100.

    Range: 0..1. Needs: expected_output; the extra ``text``. Source: Papineni et al. 2002, by the package sacrebleu
    (effective order, so that short answers do not come to nothing).
    """
    metric = load("sacrebleu.metrics", "text").BLEU(effective_order=True, lowercase=lowercase)

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        expected = sample.case.expected_output
        references = [as_text(one) for one in expected] if isinstance(expected, list) else [as_text(expected)]
        found = metric.sentence_score(as_text(sample.output), references).score
        return Mark(min(1.0, max(0.0, float(found) / 100)))

    return score
