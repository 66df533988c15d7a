"""Bodies that are too long to be held: they are taken as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from lockgate.errors import InputError, TooLarge
from lockgate.gateway.exchange import BODY_SECONDS, ClientGone, Exchange, why_cancelled


async def chunks(exchange: Exchange, limit: int) -> AsyncIterator[bytes]:
    """A request's body as it comes; raises as :meth:`Exchange.body` does, the deadline being each chunk's."""
    declared = exchange.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
    parts = aiter(exchange.protocol)
    taken = 0
    while True:
        try:
            with exchange.watchman.expect(BODY_SECONDS):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError as late:
            raise InputError(f"the body stopped coming for {BODY_SECONDS:g} seconds") from late
        except RuntimeError as gone:  # as in Exchange.body()
            raise ClientGone from gone
        except asyncio.CancelledError as gone:
            raise why_cancelled(gone) from None
        taken += len(part)
        if taken > limit:
            raise TooLarge(f"the body has more than {limit} bytes")
        yield bytes(part)
