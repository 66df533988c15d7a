"""An answer of a provider without the secrets that it was sent: it may repeat them, in a good answer as in an error.

Bytes in which none of them stands pass as they are, and at once: only the end of a chunk that could be the beginning of
one waits for the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from lockgate.gateway.upstream import MAX_ANSWER, Answer
from lockgate.project.secrets.masking import Mask


def masked(answer: Answer, mask: Mask) -> Answer:
    """``answer``, without the secrets in what is read from it."""
    return _Masked(answer, mask) if mask else answer


class _Masked(Answer):
    __slots__ = ("_inner", "_mask")

    def __init__(self, inner: Answer, mask: Mask) -> None:
        self._inner = inner
        self._mask = mask
        self.status = inner.status

    def header(self, name: str) -> str | None:
        return self._inner.header(name)

    def headers(self) -> list[tuple[str, str]]:
        return self._inner.headers()

    async def read(self, limit: int = MAX_ANSWER) -> bytes:
        return self._mask.without(await self._inner.read(limit))

    async def chunks(self) -> AsyncIterator[bytes]:
        mask = self._mask.stream()
        async for chunk in self._inner.chunks():
            if passed := mask.feed(chunk):
                yield passed
        if rest := mask.finish():
            yield rest

    def close(self) -> None:
        self._inner.close()
