"""How alike texts are, for near-duplicates: by an embedding model where one is at hand, else by letters alone.

The model is the one on this machine, or a configured provider's, passed in as an
:class:`~lockgate.evals.embeddings.Embedder`. What was used is said with what was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lockgate.evals.embeddings import Embedder, Vectors, unit

_WIDTH = 512


def lexical() -> Embedder:
    """Letters alone (hashed trigrams): finds copies with small edits, not the same thing in other words."""
    return Embedder("letters (no embedding model)", _trigrams, alike=0.85, lexical=True)


def near_pairs(vectors: Vectors, alike: float, *, chunk: int = 512) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, cosine)`` with i < j, the most alike first; memory is ``chunk`` × rows."""
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(vectors), chunk):
        some = vectors[start : start + chunk] @ vectors.T
        for i, j in np.argwhere(some >= alike):
            if start + i < j:
                found.append((int(start + i), int(j), float(some[i, j])))
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _trigrams(texts: Sequence[str]) -> Vectors:
    vectors = np.zeros((len(texts), _WIDTH), dtype=np.float32)
    for row, text in enumerate(texts):
        plain = f"  {' '.join(text.casefold().split())}  "
        for at in range(len(plain) - 2):
            digest = hashlib.blake2b(plain[at : at + 3].encode(), digest_size=4).digest()
            vectors[row, int.from_bytes(digest, "big") % _WIDTH] += 1
    return unit(vectors)
