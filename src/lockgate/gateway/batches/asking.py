"""What is asked of a provider about files and batches, always under the same of its keys: they are an account's own."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any, NamedTuple

import msgspec

from lockgate.errors import InputError, UpstreamError
from lockgate.gateway.calls.stream import passed_headers
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.http1 import Headers
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.providers import Providers, Target
from lockgate.gateway.upstream import Answer, Upstream

KINDS = ("openai", "azure")
"""Kinds of provider that may have files and batches."""
PROVIDER = "x-lockgate-provider"
"""A header: the provider of a file, where there are several."""
MAX_ANSWER = 1024 * 1024


class Reply(NamedTuple):
    """A provider's whole answer."""

    status: int
    headers: Headers
    body: bytes

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object of a good answer; empty where there is none."""
        try:
            value = msgspec.json.decode(self.body) if self.status in (200, 201) else None
        except f.UNREADABLE:
            return {}
        return value if isinstance(value, dict) else {}


class Asking:
    """Asks the providers of a project."""

    def __init__(self, upstream: Upstream, providers: Providers) -> None:
        self._upstream = upstream
        self._providers = providers

    def kind_of(self, environment: str, name: str) -> str:
        return self._providers.of(environment, name).kind

    def default(self, environment: str) -> str:
        """The provider of a file whose sender names none; InputError when it could be several."""
        able = [name for name in self._providers.configured(environment) if self.kind_of(environment, name) in KINDS]
        if not able or "openai" in able:
            return "openai"
        if len(able) == 1:
            return able[0]
        raise InputError(
            f"the file's provider is not named, and these could take it: {', '.join(able)}",
            remedy=f"send the header {PROVIDER}, or write models as provider/name in the file's lines",
        )

    def others(self, name: str) -> list[str]:
        return [other for other in self._providers.names() if other != name]

    async def target(self, environment: str, name: str) -> Target:
        """The provider; InputError when it is of a kind that has no files."""
        target = await self._providers.target(environment, name)
        if target.provider.kind not in KINDS:
            raise InputError(
                f"provider {name!r} is of kind {target.provider.kind!r}, which has no OpenAI files and batches",
                remedy=f"name one of kind {' or '.join(KINDS)} in the header {PROVIDER}",
            )
        return target

    async def ask(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        body: bytes | AsyncIterable[bytes] | None = None,
        content_type: str = "application/json",
    ) -> Reply:
        """A request and its whole answer. Raises UpstreamError."""
        answer = await self.open(method, target, path, body=body, content_type=content_type)
        try:
            return Reply(answer.status, passed_headers(answer), await answer.read(MAX_ANSWER))
        finally:
            answer.close()

    async def open(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        body: bytes | AsyncIterable[bytes] | None = None,
        content_type: str = "application/json",
        stream: bool = False,
    ) -> Answer:
        """A request, and the answer as its headers have come; it is the caller's to close."""
        try:
            answer = await self._upstream.send(
                method,
                target.url(path),
                headers={**target.headers, "content-type": content_type},
                body=body,
                timeout=target.provider.timeout,
                stream=stream,
            )
        except UpstreamError as failure:
            failure.message = target.masked(failure.message)
            raise
        answer.mask = target.mask
        return answer


def pass_on(exchange: Exchange, target: Target, reply: Reply, more: Headers | None = None) -> None:
    """Give the client the provider's words. Raises where they would be taken for Lockgate's own."""
    if reply.status in (401, 403) or reply.status < 200 or 300 <= reply.status < 400:
        raise UpstreamError(
            f"provider {target.provider.name!r} answered {reply.status}",
            sent=False,
            upstream_status=reply.status,
            remedy="check the provider's api_key and base_url in lockgate.yaml",
        )
    exchange.respond(reply.status, [*reply.headers, *(more or [])], reply.body)
