"""What each protocol's module has to say: a dialect (the client's side) and passages (the upstream's side)."""

from __future__ import annotations

from typing import Any, Protocol

from lockgate.errors import InputError, LockgateError, UpstreamError
from lockgate.gateway.problems import Response, openai_error
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols.model import Outcome, Request, Tap, Text
from lockgate.gateway.protocols.sse import Events

Place = tuple[str | int, ...]


class Dialect:
    """A protocol as clients speak it."""

    name: str
    """The word for it in passages and on spans."""
    operation: str
    """``gen_ai.operation.name``."""
    path: str
    """Where clients post it."""
    is_free = False
    """Whether no provider charges for it."""
    has_output = True
    """Whether an answer holds text that a model made, and that costs by the token."""

    def read(self, body: bytes) -> Request:
        """Take a request apart; InputError when a field in use is missing or of the wrong type."""
        raise NotImplementedError

    def failure(self, error: LockgateError, details: dict[str, Any] | None = None) -> Response:
        """An error in the protocol's own shape."""
        return openai_error(error, details=details)

    def error_event(self, error: LockgateError) -> bytes:
        """An error as the last event of a stream whose status has gone out already."""
        return b"data: " + openai_error(error)[2] + b"\n\n"

    def texts(self, request: Request) -> list[Text]:
        """Every text of the input, for guards."""
        return []


class Passage:
    """How requests of one dialect go to one kind of upstream, and how its answers come back."""

    path: str
    """Below the upstream's base URL."""
    headers: tuple[str, ...] = ()
    """Of the client's headers, those that the upstream is to see."""

    def forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        """The request as the upstream gets it: its own name for the model, a bound on output, usage asked for.

        Raises InputError when the upstream has no way to say what the request asks.
        """
        return f.encode({**request.fields, "model": f.raw(model)})

    def outcome(self, body: bytes) -> Outcome:
        """What a whole answer says about itself; empty when it is not what it should be."""
        raise NotImplementedError

    def answer(self, body: bytes, request: Request) -> bytes:
        """The answer as the client gets it."""
        return body

    def tap(self, request: Request) -> Tap:
        """For a stream."""
        raise NotImplementedError

    def refusal(self, status: int, body: bytes) -> bytes:
        """The upstream's own error as the client gets it."""
        return body


MALFORMED = (AttributeError, TypeError, LookupError, ValueError)
"""What comes of taking apart a document that has not the shape its protocol says."""


class Translation(Passage):
    """A passage to an upstream of another protocol: what has not that protocol's shape is an error, not a crash."""

    def forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        try:
            return self._forward(request, model, max_tokens)
        except MALFORMED as wrong:
            raise InputError(
                f"the request cannot be translated for this provider: {wrong}", remedy="is it shaped as the API says?"
            ) from wrong

    def answer(self, body: bytes, request: Request) -> bytes:
        try:
            return self._answer(body)
        except MALFORMED as wrong:
            raise garbage(wrong) from wrong

    def _forward(self, request: Request, model: str, max_tokens: int) -> bytes:
        raise NotImplementedError

    def _answer(self, body: bytes) -> bytes:
        raise NotImplementedError


def garbage(wrong: Exception) -> UpstreamError:
    """The upstream's answer is none of its protocol."""
    return UpstreamError(f"the provider's answer cannot be read: {wrong}", sent=True)


class Listener:
    """Reads the outcome out of a stream of which every byte passes as it came."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.begun = False
        self._events = Events()

    def feed(self, chunk: bytes) -> bytes:
        for event in self._events.feed(chunk):
            self.read(event)
        return chunk

    def finish(self) -> bytes:
        self.read(self._events.finish())
        return b""

    def read(self, event: bytes) -> None:
        """Note what one event tells."""
        raise NotImplementedError


class Reader(Tap, Protocol):
    """A tap that can be given one event at a time."""

    def read(self, event: bytes) -> object: ...


class TranslatedStream:
    """A stream of another protocol's events, each given as the client's own: none, one or several."""

    def __init__(self, reader: Reader) -> None:
        """``reader`` knows the upstream's protocol; it has read an event before that is translated."""
        self.outcome = reader.outcome
        self._reader = reader
        self._events = Events()

    @property
    def begun(self) -> bool:
        return self._reader.begun

    def feed(self, chunk: bytes) -> bytes:
        return b"".join([self._translated(event) for event in self._events.feed(chunk)])

    def finish(self) -> bytes:
        rest = self._events.finish()
        return self._translated(rest) if rest else b""

    def _translated(self, event: bytes) -> bytes:
        try:
            self._reader.read(event)
            return self._event_of(event)
        except MALFORMED as wrong:
            raise garbage(wrong) from wrong

    def _event_of(self, event: bytes) -> bytes:
        raise NotImplementedError
