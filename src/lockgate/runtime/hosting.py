"""Puts a host together: the version, its code, the way to the gateway, and the process around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiohttp

from lockgate.clock import Clock
from lockgate.ids import new_id
from lockgate.runs import host_socket
from lockgate.runtime.clients import GatewayClient
from lockgate.runtime.host import Host, serve_until_signalled
from lockgate.runtime.loader import Code
from lockgate.runtime.purse import GatewayPurse
from lockgate.runtime.service import RunService
from lockgate.runtime.tracing import Emit
from lockgate.storage.engine import Database
from lockgate.versions.model import AgentVersion


async def serve(
    version: AgentVersion,
    effective_digest: str,
    *,
    home: Path,
    control: Database,
    clock: Clock,
    code: Path,
    gateway_url: str,
    emit: Emit | None,
    drain: float,
    is_paid: Callable[[str], bool] = lambda tool: False,
) -> None:
    """Serve the version until SIGTERM. ``gateway_url`` is the gateway's root, without ``/v1``; ``is_paid`` says of a
    tool that each of its calls costs something."""
    base_url = f"{gateway_url.rstrip('/')}/v1"
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        def client_for(token: str, traceparent: str) -> GatewayClient:
            return GatewayClient(session, base_url, token, traceparent=traceparent)

        def purse_for(token: str, traceparent: str) -> GatewayPurse:
            return GatewayPurse(session, base_url, token, traceparent=traceparent, is_paid=is_paid)

        service = RunService(
            version,
            effective_digest,
            control=control,
            clock=clock,
            code=Code(code),
            client_for=client_for,
            emit=emit,
            host=new_id("host"),
            purse_for=purse_for,
        )
        await serve_until_signalled(Host(service, host_socket(home, effective_digest), drain=drain))
