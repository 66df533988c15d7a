"""Server-sent events, as bytes: where one ends, and what its data is. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import re

from lockgate.errors import UpstreamError

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event that are kept while waiting for its end."""

_END = re.compile(rb"\r?\n\r?\n|\r\r")


class Events:
    """Cuts a stream into events, wherever its chunks were cut."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are whole now, with the blank line at their end."""
        pending = self._pending
        events: list[bytes] = []
        start = 0
        if not pending:
            for end in _END.finditer(chunk):
                events.append(chunk[start : end.end()])
                start = end.end()
            if start < len(chunk):
                pending += chunk[start:] if start else chunk
        else:
            at = max(0, len(pending) - 3)  # what was looked through before holds no end, but maybe the start of one
            pending += chunk
            for end in _END.finditer(pending, at):
                events.append(bytes(pending[start : end.end()]))
                start = end.end()
            if start:
                self._pending = pending = pending[start:]
        if len(pending) > MAX_EVENT:
            raise UpstreamError(f"the provider sent an event of more than {MAX_EVENT} bytes", sent=True)
        return events

    def finish(self) -> bytes:
        """What is left when the stream has ended."""
        rest, self._pending = bytes(self._pending), bytearray()
        return rest


def data_of(event: bytes) -> bytes:
    """The event's data: its ``data:`` lines, joined; empty when it has none."""
    if event.startswith(b"data:") and event.find(b"\ndata:") < 0:
        end = len(event)
        for stop in (b"\n", b"\r"):
            at = event.find(stop)
            if at >= 0:
                end = min(end, at)
        return event[5:end].strip()
    lines = re.split(rb"\r\n|\n|\r", event)
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")).strip()


def event(data: bytes, name: bytes | None = None) -> bytes:
    """One event as it goes over the wire."""
    return b"data: " + data + b"\n\n" if name is None else b"event: " + name + b"\ndata: " + data + b"\n\n"
