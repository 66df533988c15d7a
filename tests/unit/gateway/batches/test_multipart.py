"""A multipart body means the same however it is cut, and what is written anew is read as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from urllib.parse import unquote

import pytest
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


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('form-data; name="file"; filename="in.jsonl"', "file", "in.jsonl"),
        ('Form-Data;NAME="file" ;Filename="";', "file", ""),
        ("form-data; name=file; filename=my in.jsonl", "file", "my in.jsonl"),  # as .NET's clients send it
        ("form-data; name=file; filename=\"?\"; filename*=utf-8''bl%C3%A5.txt", "file", "blå.txt"),
        ("form-data; name=file; filename*=UTF-8'en'a%0D%0Ab", "file", "a\r\nb"),
        (r'form-data; name="file"; filename="a\"; name=\"b\\.txt"', "file", 'a"; name="b\\.txt'),
        ('form-data; filename="x; name=purpose"; name="file"', "file", "x; name=purpose"),
        ('form-data; name="file"; filename="%s"' % ("x" * 4000), "file", "x" * 4000),
    ],
)
def test_a_file_has_its_names_however_they_are_quoted_and_is_written_so_that_nobody_reads_others(
    disposition: str, name: str, filename: str
) -> None:
    part = f"--b0und\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--b0und--\r\n".encode()
    start, *_ = Parts(BOUNDARY).feed(part)
    assert isinstance(start, FileStart)
    assert (start.name, start.filename) == (name, filename)
    (again, *_) = Parts(BOUNDARY).feed(file_head(BOUNDARY, start) + b"x\r\n" + closing(BOUNDARY))
    assert isinstance(again, FileStart)
    assert (again.name, unquote(again.filename)) == (name, filename)
    assert file_head(BOUNDARY, start).count(b'"') == 4


@pytest.mark.parametrize(
    "disposition",
    [
        "",
        "form-data",
        "attachment; name=file",
        'form-data; name=""',
        'form-data; name="file',
        'form-data; name="a"; name="b"',
        'form-data; name="a" filename="b"',
        'form-data; name="a"; filename="b\\"',
        "form-data; name=%s" % ("x" * 257),
    ],
)
def test_a_part_without_a_name_that_can_be_read_is_refused(disposition: str) -> None:
    with pytest.raises(InputError, match="content-disposition"):
        list(Parts(BOUNDARY).feed(f"--b0und\r\nContent-Disposition: {disposition}\r\n\r\nx".encode()))


@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_comes_is_taken_apart_or_refused(noise: bytes, at: int) -> None:
    data = body(b"batch", b"content")
    with contextlib.suppress(InputError):
        list(Parts(BOUNDARY).feed(data[:at] + noise + data[at:]))
