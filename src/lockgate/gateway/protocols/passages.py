"""Which passage takes a dialect to a kind of upstream, and every dialect there is."""

from __future__ import annotations

from lockgate.errors import InputError
from lockgate.gateway.protocols.chat import Chat, ChatPassage
from lockgate.gateway.protocols.chat_to_messages import ChatToMessages
from lockgate.gateway.protocols.dialect import Dialect, Passage
from lockgate.gateway.protocols.embeddings import Embeddings, EmbeddingsPassage
from lockgate.gateway.protocols.messages import CountTokens, CountTokensPassage, Messages, MessagesPassage
from lockgate.gateway.protocols.messages_to_chat import MessagesToChat
from lockgate.gateway.protocols.rerank import Rerank, RerankPassage
from lockgate.gateway.protocols.responses import Responses, ResponsesPassage

CHAT = Chat()

MESSAGES = Messages()
EMBEDDINGS = Embeddings()

DIALECTS: tuple[Dialect, ...] = (CHAT, MESSAGES, CountTokens(), Responses(), EMBEDDINGS, Rerank())

_KINDS = {"local": "openai", "azure": "openai", "any-llm": "openai"}
"""Kinds of upstream that speak as another kind does."""

_PASSAGES: dict[tuple[str, str], Passage] = {
    ("chat", "openai"): ChatPassage(),
    ("responses", "openai"): ResponsesPassage(),
    ("embeddings", "openai"): EmbeddingsPassage(),
    ("rerank", "openai"): RerankPassage(),
    ("chat", "anthropic"): ChatToMessages(),
    ("messages", "openai"): MessagesToChat(),
    ("messages", "anthropic"): MessagesPassage(),
    ("count_tokens", "anthropic"): CountTokensPassage(),
}


def passage_to(dialect: Dialect, kind: str) -> Passage:
    """How requests of the dialect go to an upstream of this kind; InputError when there is no way."""
    passage = _PASSAGES.get((dialect.name, _KINDS.get(kind, kind)))
    if passage is None:
        raise InputError(
            f"{dialect.path} cannot be asked of a provider of kind {kind!r}", remedy="name a model of another provider"
        )
    return passage
