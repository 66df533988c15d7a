"""A multipart body means the same however it is cut, and what is written anew is read as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.gateway.batches.multipart import Event, FileData, FileStart, Parts, closing, field_part, file_head

BOUNDARY = b"b0und"
CONTENTS = st.lists(st.sampled_from([b"\r\n--b0un", b"\r\n--", b"\r", b"\n", b"x", b"{}\n", b"\x00\xff"])).map(b"".join)


def body(purpose: bytes, content: bytes) -> bytes:
    start = FileStart("file", "in.jsonl", "text/plain")
    written = field_part(BOUNDARY, "purpose", purpose) + file_head(BOUNDARY, start) + content + b"\r\n"
    return written + closing(BOUNDARY)


def cut(data: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def whole(events: Iterable[Event]) -> list[Event]:
    """The events, with what came of the file in pieces put together."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, FileData) and found and isinstance(found[-1], FileData):
            found[-1] = FileData(found[-1].data + event.data)
        else:
            found.append(event)
    return found


@given(CONTENTS, st.lists(st.integers(1, 40)))
def test_however_it_is_cut(content: bytes, sizes: list[int]) -> None:
    parts = Parts(BOUNDARY)
    data = body(b"batch", content)
    found = whole(event for piece in cut(data, sizes) for event in parts.feed(piece))
    assert found == whole(Parts(BOUNDARY).feed(data))
    assert b"".join(event.data for event in found if isinstance(event, FileData)) == content
    assert parts.done


@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_comes_is_taken_apart_or_refused(noise: bytes, at: int) -> None:
    data = body(b"batch", b"content")
    with contextlib.suppress(InputError):
        list(Parts(BOUNDARY).feed(data[:at] + noise + data[at:]))
