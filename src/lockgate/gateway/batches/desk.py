"""What files and batches share: who may do what, and the way to the store, in threads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from lockgate.clock import Clock
from lockgate.errors import InputError, Refused
from lockgate.gateway.access import check_model, check_tools
from lockgate.gateway.batches.lines import Check
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols.links import check_links
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.providers import Providers
from lockgate.limits import actions
from lockgate.storage.engine import Database

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Desk:
    """``permit`` raises for a model, or a caller, that is switched off or kept to other regions; ``is_guarded`` says of
    a caller that what it sends to models, or gets of them, is to be looked at; ``keeps_nothing`` that no provider is to
    keep anything of it."""

    def __init__(
        self,
        *,
        control: Database,
        clock: Clock,
        permit: Callable[[Identity, str], None],
        is_guarded: Callable[[Identity], bool],
        keeps_nothing: Callable[[Identity], bool],
        providers: Providers,
    ) -> None:
        self.control = control
        self.clock = clock
        self.permit = permit
        self._is_guarded = is_guarded
        self._keeps_nothing = keeps_nothing
        self._providers = providers

    def checks(self, who: Identity) -> Check:
        """What each line of this caller's batches is asked."""
        permitted: set[str] = set()

        def check(model: str, request: Request | None) -> None:
            if model not in permitted:
                check_model(who, model)
                self.permit(who, model)
                permitted.add(model)
            if request is None:
                return
            check_tools(who, actions.offered_tools(request.decoded("tools")))
            provider = model.partition("/")[0]
            if request.references and not self._providers.of(who.environment, provider).private_urls:
                check_links(request)

        return check

    def check_guards(self, who: Identity) -> None:
        """:class:`Refused` for a caller whose calls have guardrails: a batch's lines and answers pass by them."""
        if self._is_guarded(who):
            raise Refused(
                "guardrails apply to this caller, and they cannot look into batches",
                remedy="make the calls one by one, or use a key of a tenant without guardrails",
            )

    def check_keeping(self, who: Identity) -> None:
        """:class:`Refused` for a tenant of which no provider is to keep anything: a file is kept."""
        if self._keeps_nothing(who):
            raise Refused(
                f"nothing of the tenant {who.tenant!r} is to be stored, and a provider keeps files and batches",
                remedy="make the calls one by one, or take `no_store` from the tenant in lockgate.yaml",
            )

    async def read(self, find: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Ask the store."""

        def ask() -> Any:
            with self.control.read() as connection:
                return find(connection, *arguments, **options)

        return await asyncio.to_thread(ask)

    async def write(self, change: Callable[..., Any], *arguments: Any) -> Any:
        """Change the store, in a transaction."""

        def make() -> Any:
            with self.control.write() as connection:
                return change(connection, *arguments)

        return await asyncio.to_thread(make)


def is_id(id: str) -> bool:
    """Whether it could be a provider's name for something, and nothing else than that."""
    return _ID.fullmatch(id) is not None


def parameters(exchange: Exchange) -> dict[str, str]:
    """The query's parameters."""
    return dict(parse_qsl(exchange.query, max_num_fields=64))


def whole_number(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A parameter from 1 to ``most``."""
    value = given.get(name)
    if value is None:
        return default
    if not value.isdecimal() or not 1 <= int(value[:9]) <= most:
        raise InputError(f"{name!r} is {value[:40]!r}", remedy=f"send 1 to {most}")
    return int(value)
