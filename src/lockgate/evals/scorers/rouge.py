"""rouge_l: the longest common subsequence of words."""

from __future__ import annotations

from typing import Literal

from lockgate.evals.scorers.extras import load
from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text


def rouge_l(*, measure: Literal["fmeasure", "precision", "recall"] = "fmeasure", stem: bool = True) -> Scorer:
    """ROUGE-L of answer and expected output: F1, precision or recall of their longest common subsequence of words.

    Range: 0..1. Needs: expected_output; the extra ``text``. Source: Lin 2004, by the package rouge-score.
    """
    scorer = load("rouge_score.rouge_scorer", "text").RougeScorer(["rougeL"], use_stemmer=stem)

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        found = scorer.score(as_text(sample.case.expected_output), as_text(sample.output))
        return Mark(float(getattr(found["rougeL"], measure)))

    return score
