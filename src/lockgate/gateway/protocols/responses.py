"""OpenAI responses. Pure.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols import sse
from lockgate.gateway.protocols.answers import counted, said
from lockgate.gateway.protocols.chat import message_texts, unbounded_tools
from lockgate.gateway.protocols.dialect import Dialect, Listener, Passage
from lockgate.gateway.protocols.model import Outcome, Request, Text
from lockgate.gateway.protocols.shapes import InputDetails, OutputDetails
from lockgate.results import Usage

_REFERENCES = (b'"input_image"', b'"input_file"', b'"input_audio"', b'"item_reference"')
_UNBOUNDED = ("previous_response_id", "conversation", "prompt")
"""They stand for input that Lockgate does not see."""


class Responses(Dialect):
    """``POST /v1/responses``."""

    name = "responses"
    operation = "chat"
    path = "/v1/responses"

    def read(self, body: bytes) -> Request:
        fields = f.take_apart(body, "one request of the responses API")
        unbounded = next((name for name in _UNBOUNDED if f.is_given(fields, name)), None)
        if "input" not in fields and unbounded is None:
            raise InputError("'input' is missing", remedy="send a text or a list of items")
        if unbounded is None and f.flag(fields, "background"):
            unbounded = "background"
        if unbounded is None and f.anything(fields, "service_tier") == "priority":
            unbounded = "service_tier"
        return Request(
            dialect=self,
            fields=fields,
            model=f.model_name(fields),
            size=len(body),
            stream=f.flag(fields, "stream"),
            wants_usage=True,
            max_tokens=f.count(fields, "max_output_tokens"),
            references=f.mentions(fields.get("input"), _REFERENCES),
            unbounded=unbounded or unbounded_tools(fields),
        )

    def texts(self, request: Request) -> list[Text]:
        found: list[Text] = []
        instructions, given = request.decoded("instructions"), request.decoded("input")
        if isinstance(instructions, str):
            found.append(Text(("instructions",), "system", instructions))
        if isinstance(given, str):
            found.append(Text(("input",), "user", given))
        found += message_texts(given, ("input",))
        for index, item in enumerate(given if isinstance(given, list) else ()):
            if not isinstance(item, dict) or not str(item.get("type", "")).endswith("_output"):
                continue
            output = item.get("output")
            if isinstance(output, str):
                found.append(Text(("input", index, "output"), "tool", output))
            for number, part in enumerate(output if isinstance(output, list) else ()):
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    found.append(Text(("input", index, "output", number, "text"), "tool", part["text"]))
        return found


class ResponsesPassage(Passage):
    """To an upstream that speaks the responses API too."""

    path = "/responses"

    def forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        fields = dict(request.fields)
        fields["model"] = f.raw(model)
        if request.max_tokens is None:
            fields["max_output_tokens"] = msgspec.Raw(b"%d" % max_tokens)
        return f.encode(fields)

    def outcome(self, body: bytes) -> Outcome:
        try:
            return _outcome(_answer(body))
        except f.UNREADABLE:
            return Outcome()

    def tap(self, request: Request) -> ResponsesTap:
        return ResponsesTap()


class _Usage(msgspec.Struct):
    input_tokens: int
    output_tokens: int = 0
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Answer | None = None
    message: str | None = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer).decode
_event = msgspec.json.Decoder(_Event).decode


def _counted(usage: _Usage) -> Usage | None:
    return counted(usage.input_tokens, usage.output_tokens, usage.input_tokens_details, usage.output_tokens_details)


def _outcome(answer: _Answer) -> Outcome:
    usage = answer.usage
    return Outcome(
        usage=None if usage is None else _counted(usage),
        id=answer.id,
        model=answer.model,
        finish_reasons=[answer.status] if answer.status else [],
        error=said(answer.error),
    )


class ResponsesTap(Listener):
    """The outcome stands in the events that carry the whole response."""

    def read(self, event: bytes) -> None:
        data = event[event.find(b"data:") :]
        if b".delta" in data[:200]:
            self.begun = True
            return
        if b'"response"' not in data and b'"error"' not in data:
            return
        try:
            told = _event(sse.data_of(event))
        except f.UNREADABLE:
            return
        known = self.outcome
        if told.response is not None:
            found = _outcome(told.response)
            known.id, known.model = found.id or known.id, found.model or known.model
            known.usage, known.error = found.usage or known.usage, found.error or known.error
            if found.usage is not None:
                known.finish_reasons = found.finish_reasons
        elif told.type == "error" or told.error is not None:
            known.error = known.error or told.message or said(told.error) or "an error without a message"
