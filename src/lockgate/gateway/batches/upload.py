"""One file on its way to a provider: taken apart, checked and written anew as it comes; none of it is kept."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator

from lockgate.errors import InputError
from lockgate.gateway.batches.asking import PROVIDER, Asking
from lockgate.gateway.batches.desk import check_printable
from lockgate.gateway.batches.guarding import RequestLines
from lockgate.gateway.batches.incoming import chunks
from lockgate.gateway.batches.lines import (
    MAX_LINE,
    BatchInput,
    Check,
    Counted,
    check_shape,
    model_asked,
    no_request,
)
from lockgate.gateway.batches.multipart import (
    Event,
    Field,
    FileData,
    FileEnd,
    FileStart,
    Parts,
    boundary_of,
    closing,
    field_part,
    file_head,
)
from lockgate.gateway.exchange import Exchange

MAX_UPLOAD = 512 * 1024 * 1024 + 1024 * 1024
"""Bytes of an upload: OpenAI's largest file, and the form around it."""
BATCH = "batch"
_NOT_BLANK = re.compile(rb"\S")


class Upload:
    """A client's upload. :meth:`begin` reads until it is known whose provider it goes to; then :meth:`parts` gives the
    body as the provider is to have it.

    What goes wrong on the way ends the body before its end, so that the provider takes nothing; it stands in
    :attr:`error`.
    """

    def __init__(
        self, exchange: Exchange, environment: str, asking: Asking, check: Check, guard: RequestLines | None = None
    ) -> None:
        self.boundary = secrets.token_hex(16).encode()
        self.error: Exception | None = None
        self.purpose: str | None = None
        self.provider = ""
        self.counted: Counted | None = None
        self._exchange = exchange
        self._environment = environment
        self._asking = asking
        self._check = check
        self._guard = guard
        self._parts = Parts(boundary_of(exchange.headers.get("content-type") or ""))
        self._lines: BatchInput | None = None
        self._has_file = False
        self._body = self._written()
        self._first = b""

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self.boundary.decode()}"

    async def begin(self) -> None:
        """Read until the provider is known: it stands in :attr:`provider`."""
        async for data in self._body:
            self._first = data
            return

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            if self._first:
                yield self._first
            async for data in self._body:
                yield data
        except Exception as error:
            self.error = error
            raise

    async def _written(self) -> AsyncIterator[bytes]:
        """The body, its first bytes when the provider is known."""
        waiting = bytearray()  # what is known to go on, but not yet where to
        look = _FirstLine()
        async for chunk in chunks(self._exchange, MAX_UPLOAD):
            written = bytearray()
            for event in self._parts.feed(chunk):
                if self.provider or not isinstance(event, FileData | FileEnd):
                    written += await self._taken(event)
                    continue
                line = look.line(event, self._is_batch())
                if line is None:
                    continue
                self._choose(line, look.number)
                written += await self._taken(FileData(look.seen)) if look.seen else b""
                if isinstance(event, FileEnd):
                    written += await self._taken(event)
            if self.provider:
                if waiting or written:
                    yield bytes(waiting + written)
                waiting.clear()
            else:
                waiting += written
        self._check_whole()
        yield bytes(waiting) + closing(self.boundary)

    def _is_batch(self) -> bool | None:
        """Whether it is a batch's input; None while that is not said."""
        return None if self.purpose is None else self.purpose == BATCH

    def _choose(self, line: bytes, number: int) -> None:
        """Choose the provider, now that the file's first line is known."""
        asked = model_asked(line) if self._is_batch() is not False else None
        first = (asked or "").partition("/")[0]
        named = self._exchange.headers.get(PROVIDER)
        if named is None and asked is not None and first in self._asking.others(""):
            named = first
        if named is None and self._is_batch():  # what is wrong with the line is why it names nobody
            if not line.strip():
                raise no_request()
            check_shape(line, number)
        self.provider = named or self._asking.default(self._environment, asked)
        kind = self._asking.kind_of(self._environment, self.provider)
        if self.purpose == BATCH or asked is not None:
            others = self._asking.others(self.provider)
            self._lines = BatchInput(self.provider, kind, self._check, others, self._guard)

    async def _taken(self, event: Event) -> bytes:
        if self._guard is None or self._lines is None or not isinstance(event, FileData | FileEnd):
            return self._take(event)
        return await asyncio.to_thread(self._take, event)  # it takes long: other calls go on

    def _take(self, event: Event) -> bytes:
        match event:
            case Field(name, value):
                if name == "purpose":
                    self.purpose = value.decode("utf-8", "replace").strip()
                    check_printable(name, self.purpose)
                return field_part(self.boundary, name, value)
            case FileStart():
                self._has_file = True
                return file_head(self.boundary, event)
            case FileData(data):
                return data if self._lines is None else self._lines.feed(data)
            case FileEnd():
                return (b"" if self._lines is None else self._lines.finish()) + b"\r\n"

    def _check_whole(self) -> None:
        if not self._parts.done or not self._has_file or self.purpose is None:
            missing = "its end" if not self._parts.done else "'purpose'" if self._has_file else "'file'"
            raise InputError(f"the upload misses {missing}", remedy="send a file and its purpose")
        if self.purpose == BATCH:
            if self._lines is None:
                raise InputError(
                    "the batch's first line is no request of a batch", remedy="give it custom_id, method, url and body"
                )
            self.counted = self._lines.counted


class _FirstLine:
    """The beginning of a file, until its first line that is not blank is whole."""

    def __init__(self) -> None:
        self._seen = bytearray()
        self._looked = 0
        self._start: int | None = None

    @property
    def seen(self) -> bytes:
        return bytes(self._seen)

    @property
    def number(self) -> int:
        """The line's, from 1."""
        return self._seen.count(b"\n", 0, self._start or 0) + 1

    def line(self, event: FileData | FileEnd, is_batch: bool | None) -> bytes | None:
        """The line; None while it is not whole. Of what is no batch's, anything will do."""
        seen = self._seen
        if isinstance(event, FileData):
            seen += event.data
        if self._start is None and (begun := _NOT_BLANK.search(seen, self._looked)):
            self._start = self._looked = begun.start()
        end = -1 if self._start is None else seen.find(b"\n", self._looked)
        likely = is_batch or (is_batch is None and (self._start is None or seen[self._start] == ord("{")))
        if end >= 0 or isinstance(event, FileEnd) or not likely:
            return bytes(seen[self._start or 0 : end if end >= 0 else None])
        self._looked = len(seen)
        if len(seen) > MAX_LINE:
            raise InputError(f"a line is longer than {MAX_LINE} bytes")
        return None
