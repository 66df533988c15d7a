"""embedding_similarity: near in meaning, by an embedding model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from lockgate.evals import embeddings
from lockgate.evals.embeddings import Embed, Vectors
from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text

LOCAL = "minilm"


def embedding_similarity(*, model: str = LOCAL, embed: Embed | None = None, root: Path | None = None) -> Scorer:
    """Cosine similarity of the embeddings of answer and expected output; below 0 counts as 0.

    ``model`` is ``minilm``, the one on this machine, or a provider's, ``PROVIDER:MODEL``; what that one asks for
    embeddings is part of ``max_usd``.

    Range: 0..1. Needs: expected_output; the extra ``embeddings`` (all-MiniLM-L6-v2, in a package), or a provider with
    an OpenAI-compatible ``/embeddings``. Source: Reimers and Gurevych 2019; RAGAS's semantic similarity.
    """
    vectors = embed or embedder(None if model == LOCAL else model, root or Path())

    async def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_output is None:
            return NO_EXPECTED
        left, right = await vectors((as_text(sample.output), as_text(sample.case.expected_output)))
        return Mark(min(1.0, max(0.0, float(left @ right))))

    return score


def embedder(named: str | None, root: Path) -> Embed:
    """Embeddings outside an evaluation, whose money nobody counts: a provider's, or without a name this machine's.

    Raises :class:`~lockgate.errors.InputError` where there is no such model.
    """
    if named is None:
        embeddings.check_installed()
    found = None if named is None else embeddings.of_provider(named, root)

    async def vectors(texts: Sequence[str]) -> Vectors:
        return await asyncio.to_thread(embeddings.local if found is None else found.embed, texts)

    return vectors
