"""What is asked of a provider about files and batches, always under the same of its keys: they are an account's own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable
from typing import Any, NamedTuple

from lockgate.errors import InputError, UpstreamError
from lockgate.gateway.calls.retries import seconds_to_wait
from lockgate.gateway.calls.stream import passed_headers
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.headers import Headers
from lockgate.gateway.protocols.answers import document
from lockgate.gateway.providers import Providers, Target
from lockgate.gateway.upstream import Answer, Upstream

log = logging.getLogger(__name__)

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
        return document(self.body) if self.status in (200, 201) else {}


class Asking:
    """Asks the providers of a project."""

    def __init__(self, upstream: Upstream, providers: Providers) -> None:
        self._upstream = upstream
        self._providers = providers

    def kind_of(self, environment: str, name: str) -> str:
        return self._providers.of(environment, name).kind

    def default(self, environment: str, asked: str | None = None) -> str:
        """The provider of a file whose sender names none; InputError when it could be several. ``asked``: the model of
        its first line, whose beginning may be meant for a provider's name."""
        able = [name for name in self._providers.configured(environment) if self.kind_of(environment, name) in KINDS]
        if not able or "openai" in able:
            return "openai"
        if len(able) == 1:
            return able[0]
        first, slash, _ = (asked or "").partition("/")
        why = "the file's provider is not named"
        if slash:
            why = f"'model' is {asked!r}, and no provider is called {first!r}"
        raise InputError(
            f"{why}; these could take the file: {', '.join(able)}",
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

    async def undo(self, method: str, target: Target, path: str) -> bool:
        """Ask for the end of what was just made and could not be written down. Returns whether the provider did it."""
        try:
            status = (await self.ask(method, target, path, body=b"{}" if method == "POST" else None)).status
        except UpstreamError as failure:
            log.error("%s %s at provider %r: %s", method, path, target.provider.name, failure)
            return False
        if status not in (200, 202, 204, 404):
            log.error("%s %s at provider %r: it answered %d", method, path, target.provider.name, status)
            return False
        return True

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
    """Give the client the provider's words. Raises UpstreamError where they would be taken for Lockgate's own, and
    where no client of the API could read them."""
    name, shown = target.provider.name, reply.body[:500].decode("utf-8", "replace")
    if reply.status in (401, 403) or reply.status < 200 or 300 <= reply.status < 400:
        raise UpstreamError(
            f"provider {name!r} answered {reply.status}",
            sent=False,
            upstream_status=reply.status,
            remedy="check the provider's api_key and base_url in lockgate.yaml",
        )
    if reply.status < 300 and not reply.object.get("id"):
        raise UpstreamError(
            f"provider {name!r} answered {reply.status}, and with no object that has an id: {shown!r}",
            sent=True,
            upstream_status=reply.status,
        )
    if not document(reply.body):  # a page of whatever stands before the provider, say
        failure = UpstreamError(
            f"provider {name!r} answered {reply.status}: {shown}",
            sent=True,
            upstream_status=reply.status,
            retry_after=seconds_to_wait(dict(reply.headers).get("retry-after")),
        )
        failure.status = reply.status
        raise failure
    exchange.respond(reply.status, [*reply.headers, *(more or [])], reply.body)
