"""Reranking, in the shape that Cohere, Jina, Voyage, vLLM, SGLang, llama.cpp and TEI have in common. Pure.

Request: ``model``, ``query``, ``documents``, ``top_n``. Answer: ``results`` of ``index`` and ``relevance_score``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols.answers import said
from lockgate.gateway.protocols.dialect import Dialect, Passage
from lockgate.gateway.protocols.model import Outcome, Request, Tap, Text
from lockgate.results import Usage

DOCUMENTS_A_UNIT = 100
"""Providers that bill by the search count so many documents as one."""

_REFERENCES = (b'"image"', b'"image_url"')


class Rerank(Dialect):
    """``POST /v1/rerank``."""

    name = "rerank"
    operation = "rerank"
    path = "/v1/rerank"
    has_output = False

    def read(self, body: bytes) -> Request:
        fields = f.take_apart(body, "one request to rerank")
        query: str = f.field(fields, "query", str, ...)
        documents: list[Any] = f.field(fields, "documents", list[Any], ...)
        # The query is read once with each document: that is what token-priced rerankers bill.
        return Request(
            dialect=self,
            fields=fields,
            model=f.model_name(fields),
            size=len(body) + len(query.encode()) * max(0, len(documents) - 1),
            references=f.mentions(fields["documents"], _REFERENCES),
            units=max(1, -(-len(documents) // DOCUMENTS_A_UNIT)),
        )

    def texts(self, request: Request) -> list[Text]:
        query, documents = request.decoded("query"), request.decoded("documents")
        found = [Text(("query",), "user", query)]
        for index, document in enumerate(documents):
            if isinstance(document, str):
                found.append(Text(("documents", index), "tool", document))
            elif isinstance(document, dict) and isinstance(document.get("text"), str):
                found.append(Text(("documents", index, "text"), "tool", document["text"]))
        return found


class RerankPassage(Passage):
    """To an upstream that has ``/rerank``."""

    path = "/rerank"

    def outcome(self, body: bytes) -> Outcome:
        try:
            answer = _answer(body)
        except f.UNREADABLE:
            return Outcome()
        units = answer.meta.billed_units if answer.meta is not None else None
        tokens = None
        if answer.usage is not None:
            tokens = answer.usage.total_tokens or answer.usage.prompt_tokens
        if tokens is None and answer.meta is not None and answer.meta.tokens is not None:
            tokens = answer.meta.tokens.input_tokens
        searches = None if units is None else units.search_units
        usage = None if tokens is None and searches is None else Usage(input_tokens=max(0, tokens or 0))
        return Outcome(
            usage=usage,
            units=max(1, round(searches or 1)),
            id=answer.id,
            model=answer.model,
            error=said(answer.error),
        )

    def tap(self, request: Request) -> Tap:
        raise InputError("a ranking is not streamed", remedy="leave 'stream' out")


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Units(msgspec.Struct):
    search_units: float | None = None


class _Tokens(msgspec.Struct):
    input_tokens: int | None = None


class _Meta(msgspec.Struct):
    billed_units: _Units | None = None
    tokens: _Tokens | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None
    meta: _Meta | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer).decode
