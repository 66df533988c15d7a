"""Where public names lead that an upstream in a private network would fetch from: not into that network.

What this machine is told of a name need not be what the upstream is told a moment later: whoever owns a name can change
it. Against that only the upstream's own rules help. This stops the names that always lead inside.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from lockgate.errors import InputError
from lockgate.gateway.protocols.links import address_of, is_public

MOST = 16
"""Names that one request may hold."""
SECONDS = 2.0
"""A name that takes longer to look up is not waited for."""
_LASTS = 60.0
_KEPT = 1000

Resolve = Callable[[str], Collection[str]]


def addresses(name: str) -> set[str]:
    """All IP addresses of a name, as this machine sees it; none when there are none."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


class Names:
    """One per worker. ``resolve`` may block: it is called in threads of its own."""

    def __init__(self, resolve: Resolve = addresses) -> None:
        self._resolve = resolve
        self._known: dict[str, tuple[float, str | None]] = {}
        # Of their own: names that somebody makes slow must not take the threads that look up providers.
        self._threads = ThreadPoolExecutor(4, "names")

    async def check(self, names: Collection[str]) -> None:
        """:class:`InputError` for a name that leads into a private network. One that is not found passes."""
        if len(names) > MOST:
            raise InputError(f"the request holds addresses of {len(names)} hosts", remedy=f"name at most {MOST}")
        found = await asyncio.gather(*map(self._private, sorted(names)))
        for name, address in zip(sorted(names), found, strict=True):
            if address is not None:
                raise InputError(
                    f"the request holds an address of {name[:120]!r}, which is {address}: in a private network",
                    remedy="send the content itself, or set `private_urls: true` at the provider",
                )

    async def _private(self, name: str) -> str | None:
        known = self._known.get(name)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        try:
            async with asyncio.timeout(SECONDS):
                found = await asyncio.get_running_loop().run_in_executor(self._threads, self._resolve, name)
        except TimeoutError:
            return None
        inside = next(
            (one for one in found if (address := address_of(one)) is not None and not is_public(address)), None
        )
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[name] = time.monotonic() + _LASTS, inside
        return inside
