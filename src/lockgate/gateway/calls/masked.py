"""An answer of a provider without the secrets that it was sent: it may repeat them, in a good answer as in an error.

Bytes in which none of them stands pass as they are, and at once: only the end of a chunk that could be the beginning of
one waits for the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from lockgate.gateway.upstream import MAX_ANSWER, Answer
from lockgate.project.secrets.masking import StreamMask, without


def masked(answer: Answer, secrets: Sequence[str]) -> Answer:
    """``answer``, without ``secrets`` in what is read from it."""
    mask = StreamMask.of(*secrets)
    return answer if mask is None else _Masked(answer, secrets, mask)


class _Masked(Answer):
    __slots__ = ("_inner", "_mask", "_secrets")

    def __init__(self, inner: Answer, secrets: Sequence[str], mask: StreamMask) -> None:
        self._inner = inner
        self._mask = mask
        self._secrets = secrets
        self.status = inner.status

    def header(self, name: str) -> str | None:
        return self._inner.header(name)

    def headers(self) -> list[tuple[str, str]]:
        return self._inner.headers()

    async def read(self, limit: int = MAX_ANSWER) -> bytes:
        return without(await self._inner.read(limit), *self._secrets)

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner.chunks():
            if passed := self._mask.feed(chunk):
                yield passed
        if rest := self._mask.finish():
            yield rest

    def close(self) -> None:
        self._inner.close()
