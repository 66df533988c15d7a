"""Which passage takes a dialect to a kind of upstream, and every dialect there is."""

from __future__ import annotations

from lockgate.errors import InputError
from lockgate.gateway.protocols.chat import Chat, ChatPassage
from lockgate.gateway.protocols.dialect import Dialect, Passage

CHAT = Chat()

DIALECTS: tuple[Dialect, ...] = (CHAT,)

_KINDS = {"local": "openai", "azure": "openai"}
"""Kinds of upstream that speak as another kind does."""

_PASSAGES: dict[tuple[str, str], Passage] = {
    ("chat", "openai"): ChatPassage(),
}


def passage_to(dialect: Dialect, kind: str) -> Passage:
    """How requests of the dialect go to an upstream of this kind; InputError when there is no way."""
    passage = _PASSAGES.get((dialect.name, _KINDS.get(kind, kind)))
    if passage is None:
        raise InputError(
            f"{dialect.path} cannot be asked of a provider of kind {kind!r}", remedy="name a model of another provider"
        )
    return passage
