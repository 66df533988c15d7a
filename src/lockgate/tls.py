"""aiohttp, imported without the machine's certificates: they are read for the first connection that speaks TLS.

aiohttp makes two TLS contexts when it is imported, and reads some 140 certificates into each. That is a tenth of what
``lockgate eval`` takes to its first call, for nothing where a provider is asked over plain http, as on this machine.
Whatever is on the way of that command to its first call takes aiohttp from here.
"""

from __future__ import annotations

import ssl
from typing import Any


def _late(context: ssl.SSLContext) -> None:
    """In place of ``set_default_verify_paths``: do that when the context is first used. Before, it trusts nobody."""

    def wrap_bio(*given: Any, **options: Any) -> ssl.SSLObject:
        del context.wrap_bio  # the class's own, from now on
        context.set_default_verify_paths()
        return context.wrap_bio(*given, **options)

    context.wrap_bio = wrap_bio  # type: ignore[method-assign]


ssl.SSLContext.set_default_verify_paths = _late  # type: ignore[method-assign,assignment]
try:
    import aiohttp
finally:
    del ssl.SSLContext.set_default_verify_paths  # what it inherits shows again

__all__ = ["aiohttp"]
