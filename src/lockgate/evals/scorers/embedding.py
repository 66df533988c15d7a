"""embedding_similarity: near in meaning, by an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lockgate.evals import embeddings
from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text

LOCAL = "minilm"


def embedding_similarity(*, model: str = LOCAL, environment: str = "prod", root: Path | None = None) -> Scorer:
    """Cosine similarity of the embeddings of answer and expected output; below 0 counts as 0.

    ``model`` is ``minilm``, the one on this machine, or a provider's, ``PROVIDER:MODEL``, as ``environment`` resolves
    it; what a provider asks for embeddings is no part of ``max_usd``.

    Range: 0..1. Needs: expected_output; the extra ``embeddings`` (all-MiniLM-L6-v2, in a package), or a provider with
    an OpenAI-compatible ``/embeddings``. Source: Reimers and Gurevych 2019; RAGAS's semantic similarity.
    """
    if model == LOCAL:
        embeddings.check_installed()
        embedder = embeddings.Embedder(LOCAL, embeddings.local, alike=0.92)
    else:
        embedder = embeddings.of_provider(model, root or Path(), environment)

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        left, right = embedder.embed((as_text(sample.output), as_text(sample.case.expected_output)))
        return Mark(min(1.0, max(0.0, float(left @ right))))

    return score


def embed(texts: Sequence[str]) -> list[list[float]]:
    """The embeddings of texts, by the model on this machine."""
    return [[float(number) for number in row] for row in embeddings.local(texts)]
