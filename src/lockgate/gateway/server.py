"""A server as aiohttp's pool of connections knows it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import aiohttp


class Server(aiohttp.ClientRequest):
    """Tells the pool which server is meant, with a key that is made once and not for each call."""

    @cached_property
    def connection_key(self) -> Any:
        return super().connection_key
