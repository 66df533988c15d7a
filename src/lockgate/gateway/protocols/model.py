"""A request of any protocol, and what an answer says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from lockgate.gateway.protocols import fields as json_fields
from lockgate.limits import actions
from lockgate.results import Usage

if TYPE_CHECKING:
    from lockgate.gateway.protocols.dialect import Dialect


class Text(NamedTuple):
    """One text of a request or an answer. ``place`` is where it stands, keys and indices from the top."""

    place: tuple[str | int, ...]
    role: str  # system | user | assistant | tool
    text: str


class Request(msgspec.Struct, kw_only=True):
    """One request: the fields in use, and all of them raw."""

    dialect: Dialect
    fields: json_fields.Fields
    model: str  # provider/name
    size: int  # bytes
    stream: bool = False
    wants_usage: bool = False  # whether the client asked for usage in its stream
    max_tokens: int | None = None  # None: the caller set no bound on the output
    n: int = 1
    units: int = 1  # how many times a price by the request may be due
    references: int = 0  # images, files, sounds: what the bytes do not bound
    unbounded: str | None = None  # a parameter whose cost cannot be bounded beforehand
    keeps_prefix: bool = False  # whether a provider that has to be told is told to keep a long prompt's start

    def decoded(self, name: str) -> Any:
        """One field as Python values; None when it is not there."""
        return json_fields.anything(self.fields, name)

    def string(self, name: str) -> str | None:
        """A further field that has to be a string or absent."""
        value: str | None = json_fields.field(self.fields, name, str | None)
        return value

    def replaced(self, **changed: Any) -> Request:
        """The request with other values in some of its fields, read anew: its bounds are those of what will be sent."""
        given = {**self.fields, **{name: json_fields.raw(value) for name, value in changed.items()}}
        return self.dialect.read(json_fields.encode(given))

    def offered(self) -> list[str]:
        """What a list of allowed tools has to hold for this request (:func:`lockgate.limits.actions.offered_by`).

        As with :meth:`texts`, what was looked at is what is sent. It decodes the whole conversation: only for a caller
        who has a list.
        """
        words = actions.offered_by(self.fields, self.decoded)
        for name in self.fields:
            if name.casefold() in actions.LOOKED_AT:
                self.fields[name] = json_fields.raw(self.decoded(name))
        return words

    def texts(self) -> list[Text]:
        """Every text of the input: system prompts, messages, tool results.

        What was looked at is what is sent: the fields that hold them are written anew, so that a key that stands
        twice in one of them shows a guard and the provider the same value.
        """
        found = self.dialect.texts(self)
        for name in {str(text.place[0]) for text in found}:
            self.fields[name] = json_fields.raw(self.decoded(name))
        return found

    def with_texts(self, texts: Mapping[tuple[str | int, ...], str]) -> Request:
        """The request with other texts at some places."""
        if not texts:
            return self
        values = {str(place[0]): self.decoded(str(place[0])) for place in texts}
        put_all(values, texts)
        return self.replaced(**values)


class Outcome(msgspec.Struct, kw_only=True):
    """What an answer says about itself. ``usage`` is None when the provider did not tell."""

    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    fingerprint: str | None = None  # of the provider's configuration, where it states one
    finish_reasons: list[str] = []
    units: int = 1  # how many times a price by the request is due
    error: str | None = None  # what an answer of status 200 says went wrong


class Tap(Protocol):
    """Reads the outcome out of a stream as it passes, and gives what the client is to get of it."""

    outcome: Outcome

    @property
    def begun(self) -> bool:
        """Whether any output has been seen: from then on another upstream could not take over."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take what came; returns what to pass on now (maybe nothing yet)."""
        ...

    def finish(self) -> bytes:
        """What is left to pass on when the stream has ended."""
        ...


def put_all(document: Any, texts: Mapping[tuple[str | int, ...], str]) -> None:
    """Set the texts at their places of a decoded document."""
    for place, text in texts.items():
        at = document
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = text
