"""Bodies that are too long to be held: they are taken as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lockgate.errors import TooLarge
from lockgate.gateway.exchange import Exchange


async def chunks(exchange: Exchange, limit: int) -> AsyncIterator[bytes]:
    """A request's body as it comes; raises as :meth:`Exchange.part` does, and :class:`TooLarge` over ``limit``."""
    declared = exchange.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
    taken = 0
    while part := await exchange.part():
        taken += len(part)
        if taken > limit:
            raise TooLarge(f"the body has more than {limit} bytes")
        yield part
