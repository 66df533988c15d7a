"""Passes on what is not the data plane's: the control plane's pages and API, over its Unix socket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from multidict import CIMultiDict
from yarl import URL

from lockgate.errors import Unavailable, UpstreamError
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.upstream import Upstream
from lockgate.runs import control_socket

_PATH = "/:@!$&'()*+,;=~"
_QUERY = _PATH + "?%"  # which the server has left as it was
_IDLE_SECONDS = 120.0  # between two chunks of a response
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
     "x-request-id", "server", "date")
)  # fmt: skip


class ControlProxy:
    """One per worker. While the control plane is down, its paths answer 503; the data plane's do not notice."""

    def __init__(self, home: Path) -> None:
        self._upstream = Upstream(control_socket(home))

    async def pass_on(self, exchange: Exchange) -> None:
        body = await exchange.body(known=False) if exchange.method not in ("GET", "HEAD") else None
        headers = CIMultiDict((name, value) for name, value in exchange.headers.items() if name not in _HOP_BY_HOP)
        headers["x-request-id"] = exchange.request_id
        # The server has decoded the path; it is encoded anew, so that nothing in it can end the request line.
        query = f"?{quote(exchange.query, safe=_QUERY)}" if exchange.query else ""
        url = URL(f"http://control{quote(exchange.path, safe=_PATH)}{query}", encoded=True)
        with exchange.watch():
            try:
                answer = await self._upstream.send(
                    exchange.method, url, headers=headers, body=body, timeout=_IDLE_SECONDS, stream=True
                )
            except UpstreamError as failure:
                raise Unavailable(
                    "the control plane does not answer; model calls and runs are served all the same",
                    remedy="lockgate up starts it, and starts it again when it dies",
                ) from failure
            try:
                passed = [(name, value) for name, value in answer.headers() if name not in _HOP_BY_HOP]
                length = answer.header("content-length")
                if length is not None:
                    if exchange.method == "HEAD":
                        passed.append(("content-length", length))
                    exchange.respond(answer.status, passed, await answer.read())
                    return
                exchange.stream(answer.status, passed)
                while chunk := await answer.piece():
                    await exchange.send(chunk)
            finally:
                answer.close()

    async def close(self) -> None:
        await self._upstream.close()
