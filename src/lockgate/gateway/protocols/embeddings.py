"""OpenAI embeddings. Pure.

https://platform.openai.com/docs/api-reference/embeddings
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

_REFERENCES = (b'"image"', b'"image_url"', b'"video"')


class Embeddings(Dialect):
    """``POST /v1/embeddings``."""

    name = "embeddings"
    operation = "embeddings"
    path = "/v1/embeddings"
    has_output = False

    def read(self, body: bytes) -> Request:
        fields = f.take_apart(body, "one request for embeddings")
        if "input" not in fields:
            raise InputError("'input' is missing", remedy="send a text or a list of texts")
        return Request(
            dialect=self,
            fields=fields,
            model=f.model_name(fields),
            size=len(body),
            references=f.mentions(fields["input"], _REFERENCES),
        )

    def texts(self, request: Request) -> list[Text]:
        given = request.decoded("input")
        if isinstance(given, str):
            return [Text(("input",), "user", given)]
        listed = given if isinstance(given, list) else ()
        return [Text(("input", index), "user", text) for index, text in enumerate(listed) if isinstance(text, str)]


class EmbeddingsPassage(Passage):
    """To an upstream that speaks OpenAI's embeddings."""

    path = "/embeddings"

    def outcome(self, body: bytes) -> Outcome:
        try:
            answer = _answer(body)
        except f.UNREADABLE:
            return Outcome()
        usage = answer.usage
        tokens = None if usage is None else usage.prompt_tokens or usage.total_tokens
        return Outcome(
            usage=None if tokens is None or tokens < 0 else Usage(input_tokens=tokens),
            model=answer.model,
            error=said(answer.error),
        )

    def tap(self, request: Request) -> Tap:
        raise InputError("embeddings are not streamed", remedy="leave 'stream' out")


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer).decode
