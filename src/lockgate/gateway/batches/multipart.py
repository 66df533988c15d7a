"""A multipart/form-data body taken apart while it comes, and put together anew. Pure.

What goes on is written anew, so that no odd header or second field of a name means one thing here and another to the
provider. https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

from lockgate.errors import InputError

MAX_FIELD = 64 * 1024
"""Bytes of a field that is no file."""
MAX_FIELDS = 32
_MAX_HEADERS = 8192
_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.I | re.S)
_MAX_NAME = 256
_PARAMETER = re.compile(r""";\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\\r\n]|\\.)*)"|([^;"\r\n]*))\s*""")
_ESCAPED = re.compile(r'\\(["\\])')
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.I)  # https://www.rfc-editor.org/rfc/rfc5987
_NOT_QUOTED = re.compile(r'[\x00-\x1f\x7f"\\]')


class Field(NamedTuple):
    """A field that is no file, whole."""

    name: str
    value: bytes


class FileStart(NamedTuple):
    """The beginning of the file."""

    name: str
    filename: str
    content_type: str


class FileData(NamedTuple):
    """Some of the file's bytes."""

    data: bytes


class FileEnd(NamedTuple):
    """The file has been given whole."""


Event = Field | FileStart | FileData | FileEnd


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type header names."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise InputError(
            f"the content type is {content_type[:120]!r}", remedy="send multipart/form-data, as the OpenAI clients do"
        )
    return (found[1] or found[2]).encode()


class Parts:
    """Takes a body apart. One file at most, each field once."""

    def __init__(self, boundary: bytes) -> None:
        self._end = b"\r\n--" + boundary
        self._left = bytearray(b"\r\n")  # so that the first boundary looks as all others
        self._state = "preamble"
        self._seen: set[str] = set()
        self._file_seen = False
        self._field = ""

    @property
    def done(self) -> bool:
        """Whether the closing boundary has come."""
        return self._state == "done"

    def feed(self, data: bytes) -> Iterator[Event]:
        """What these further bytes tell."""
        self._left += data
        while True:
            before = len(self._left), self._state
            yield from self._step()
            if (len(self._left), self._state) == before:
                return

    def _step(self) -> Iterator[Event]:
        left = self._left
        if self._state == "preamble":
            if len(left) >= len(self._end):
                if not left.startswith(self._end):
                    raise _broken("it does not begin with its boundary")
                del left[: len(self._end)]
                self._state = "boundary"
        elif self._state == "boundary":
            if len(left) >= 2:
                if left.startswith(b"--"):
                    self._state = "done"
                elif left.startswith(b"\r\n"):
                    self._state = "headers"
                else:
                    raise _broken("a boundary is followed by other bytes")
                del left[:2]
        elif self._state == "headers":
            end = left.find(b"\r\n\r\n")
            if end >= 0:
                head = bytes(left[:end])
                del left[: end + 4]
                yield from self._begin(head)
            elif len(left) > _MAX_HEADERS:
                raise _broken("a part's headers do not end")
        elif self._state == "field":
            end = left.find(self._end)
            if (end if end >= 0 else len(left)) > MAX_FIELD:
                raise InputError(f"the field {self._field!r} is longer than {MAX_FIELD} bytes")
            if end >= 0:
                value = bytes(left[:end])
                del left[: end + len(self._end)]
                self._state = "boundary"
                yield Field(self._field, value)
        elif self._state == "file":
            end = left.find(self._end)
            if end >= 0:
                if end:
                    yield FileData(bytes(left[:end]))
                del left[: end + len(self._end)]
                self._state = "boundary"
                yield FileEnd()
            elif len(left) >= len(self._end):
                sure = len(left) - len(self._end) + 1  # the rest may be the beginning of a boundary
                data = bytes(left[:sure])
                del left[:sure]
                yield FileData(data)
        elif left:
            left.clear()  # after the end nothing counts

    def _begin(self, head: bytes) -> Iterator[Event]:
        headers: dict[str, str] = {}
        for line in head.decode("utf-8", "replace").split("\r\n"):
            header, colon, value = line.partition(":")
            if not colon or header.strip().lower() in headers:
                raise _broken(f"a part has the header {line[:80]!r}")
            headers[header.strip().lower()] = value.strip()
        name, filename = _names(headers.get("content-disposition", ""))
        if name in self._seen or len(self._seen) >= MAX_FIELDS:
            raise InputError(f"the field {name!r} is one too many", remedy="send each field once")
        self._seen.add(name)
        if filename is None:
            self._state, self._field = "field", name
            return
        if self._file_seen:
            raise InputError(f"{name!r} is a second file", remedy="upload one file at a time")
        self._file_seen = True
        self._state = "file"
        kind = headers.get("content-type", "application/octet-stream")
        yield FileStart(name, filename, kind if kind.isprintable() else "application/octet-stream")


def _names(disposition: str) -> tuple[str, str | None]:
    """The field's name and the file's, from a part's header; None for the file's where it is no file."""
    kind = disposition.partition(";")[0]
    found: dict[str, str] = {}
    at, end = len(kind), len(disposition.rstrip("; \t"))
    while at < end:
        one = _PARAMETER.match(disposition, at)
        if one is None or one[1].lower() in found:
            raise _broken(f"a part's content-disposition is {disposition[:80]!r}")
        quoted, bare = one[2], one[3]  # clients for .NET do not quote
        found[one[1].lower()] = bare.strip() if quoted is None else _ESCAPED.sub(r"\1", quoted)
        at = one.end()
    name, filename = found.get("name"), found.get("filename")
    if kind.strip().lower() != "form-data" or not name or len(name) > _MAX_NAME:
        raise _broken(f"a part's content-disposition is {disposition[:80]!r}")
    extended = _EXTENDED.fullmatch(found.get("filename*", ""))
    if extended is not None:
        filename = unquote(extended[2], extended[1])
    return name, filename


def _quoted(name: str) -> bytes:
    """A name as it stands between quotes, as browsers write it: no reader takes its end for another place."""
    return _NOT_QUOTED.sub(lambda mark: f"%{ord(mark[0]):02X}", name).encode()


def field_part(boundary: bytes, name: str, value: bytes) -> bytes:
    """A field as it goes on."""
    return b'--%s\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (boundary, _quoted(name), value)


def file_head(boundary: bytes, start: FileStart) -> bytes:
    """What goes before a file's bytes."""
    return b'--%s\r\ncontent-disposition: form-data; name="%s"; filename="%s"\r\ncontent-type: %s\r\n\r\n' % (
        boundary, _quoted(start.name), _quoted(start.filename), start.content_type.encode(),
    )  # fmt: skip


def closing(boundary: bytes) -> bytes:
    """What ends the body."""
    return b"--%s--\r\n" % boundary


def _broken(why: str) -> InputError:
    return InputError(f"the body is no multipart form: {why}", remedy="send it as the OpenAI clients do")
