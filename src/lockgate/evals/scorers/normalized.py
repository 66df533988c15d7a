"""normalized_match: the same words, whatever their spelling of case, accents, articles and punctuation."""

from __future__ import annotations

import re
import unicodedata

from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized_match(*, accents: bool = True) -> Scorer:
    """1 when answer and expected output are the same words, else 0.

    Case, white space, punctuation and English articles do not count; nor, unless ``accents`` is false, do accents.
    A list of expected outputs means any of them.

    Range: 0 or 1. Needs: expected_output. Source: answer normalisation of SQuAD (Rajpurkar et al. 2016).
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        expected = sample.case.expected_output
        wanted = expected if isinstance(expected, list) else [expected]
        answer = words(as_text(sample.output), accents)
        return Mark(float(any(words(as_text(one), accents) == answer for one in wanted)))

    return score


def words(text: str, fold_accents: bool = True) -> str:
    """The words of a text, in their plainest form."""
    plain = unicodedata.normalize("NFKD" if fold_accents else "NFKC", text).casefold()
    kept = (
        " " if unicodedata.category(char)[0] in "PZSC" else char for char in plain if not unicodedata.combining(char)
    )
    return " ".join(_ARTICLES.sub(" ", "".join(kept)).split())
