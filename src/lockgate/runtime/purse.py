"""Where a hosted run's paid tools are held for: the gateway's ``/v1/holds``, under the run's token."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from lockgate.errors import UpstreamError
from lockgate.money import to_nano
from lockgate.runtime.model import Held
from lockgate.runtime.wire import refusal_of

log = logging.getLogger(__name__)

SECONDS = 10.0


class GatewayPurse:
    """One run's. See :class:`lockgate.runtime.model.Purse`; ``is_paid`` says for which tools the gateway is asked."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token: str,
        *,
        traceparent: str = "",
        is_paid: Callable[[str], bool],
    ) -> None:
        """``base_url`` ends with ``/v1``."""
        self._session = session
        self._base_url = base_url
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if traceparent:
            self._headers["traceparent"] = traceparent
        self._is_paid = is_paid

    async def hold(self, tool: str) -> Held | None:
        if not self._is_paid(tool):
            return None
        told = await self._post("/holds", {"tool": tool}, f"tool {tool!r}")
        return Held(str(told["id"]), to_nano(told["held_usd"]))

    async def settle(self, held: Held) -> None:
        await self._end("/holds/settle", held)

    async def release(self, held: Held) -> None:
        await self._end("/holds/release", held)

    async def _end(self, path: str, held: Held) -> None:
        try:
            await self._post(path, {"id": held.id}, "a paid tool's hold")
        except Exception as lost:  # it is charged in full later: no reason to fail a call that was made
            log.warning("a hold could not be ended, and will be charged in full: %s", lost)

    async def _post(self, path: str, body: dict[str, Any], what: str) -> dict[str, Any]:
        try:
            async with self._session.post(
                f"{self._base_url}{path}",
                data=msgspec.json.encode(body),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=SECONDS),
                allow_redirects=False,  # would carry the token elsewhere
            ) as response:
                data = await response.read()
                if response.status != 200:
                    raise refusal_of(response.status, response.headers, data, what)
                return msgspec.json.decode(data, type=dict[str, Any])
        except (aiohttp.ClientError, msgspec.DecodeError) as failure:
            raise UpstreamError(f"{what}: the gateway cannot be asked: {failure}", sent=True) from failure
