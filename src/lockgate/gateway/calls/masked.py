"""An answer of a provider without the key that it was sent: it may repeat it, in a good answer as in an error.

Bytes in which the key does not stand pass as they are, and at once: only the end of a chunk that could be the key's
beginning waits for the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from lockgate.gateway.upstream import MAX_ANSWER, Answer
from lockgate.project.secrets.masking import StreamMask, without


def masked(answer: Answer, key: str | None) -> Answer:
    """``answer``, without ``key`` in what is read from it."""
    mask = StreamMask.of(key)
    return answer if mask is None or key is None else _Masked(answer, key, mask)


class _Masked(Answer):
    __slots__ = ("_inner", "_key", "_mask")

    def __init__(self, inner: Answer, key: str, mask: StreamMask) -> None:
        self._inner = inner
        self._key = key
        self._mask = mask
        self.status = inner.status

    def header(self, name: str) -> str | None:
        return self._inner.header(name)

    def headers(self) -> list[tuple[str, str]]:
        return self._inner.headers()

    async def read(self, limit: int = MAX_ANSWER) -> bytes:
        return without(await self._inner.read(limit), self._key)

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner.chunks():
            if passed := self._mask.feed(chunk):
                yield passed
        if rest := self._mask.finish():
            yield rest

    def close(self) -> None:
        self._inner.close()
