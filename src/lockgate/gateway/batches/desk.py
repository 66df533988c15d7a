"""What files and batches share: who may do what, and the way to the store, in threads."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from time import time_ns
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockgate.clock import Clock
from lockgate.errors import Conflict, Corrupt, InputError, NotFound, Refused, Unavailable
from lockgate.gateway.access import check_model, check_tools
from lockgate.gateway.batches import store
from lockgate.gateway.batches.guarding import AnswerLines, RequestLines, Terms, answer_lines, check_batch
from lockgate.gateway.batches.lines import Check, Counted
from lockgate.gateway.batches.store import Batch, File
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.guardrails.service import ATTRIBUTE, Guardrails
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols.links import check_links
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.providers import Providers
from lockgate.storage.engine import Database
from lockgate.telemetry.context import new_span_id
from lockgate.telemetry.model import ERROR, OK, Span

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MAX_PARAMETERS = 64
_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""What may pass: the store is not there, or takes no writes. Others are about what was to be written."""
_CHECK_SECONDS = 5.0
"""So long the store may take to show that it takes writes."""


class Desk:
    """``permit`` raises for a model, or a caller, that is switched off or kept to other regions; ``keeps_nothing`` says
    of a caller that no provider is to keep anything of it."""

    def __init__(
        self,
        *,
        control: Database,
        clock: Clock,
        permit: Callable[[Identity, str], None],
        guards: Guardrails,
        emit: Callable[[Span], None],
        keeps_nothing: Callable[[Identity], bool],
        providers: Providers,
    ) -> None:
        self.control = control
        self.clock = clock
        self.permit = permit
        self._guards = guards
        self._emit = emit
        self._keeps_nothing = keeps_nothing
        self._providers = providers
        self._checking: asyncio.Task[None] | None = None

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
            if (who.tools if who.run is None else who.run.tools) is not None:
                check_tools(who, request.offered())
            provider = model.partition("/")[0]
            if request.references and not self._providers.of(who.environment, provider).private_urls:
                check_links(request)

        return check

    def check_guards(self, who: Identity, counted: Counted) -> None:
        """Raises where a batch of these lines is not checked as the caller's calls are."""
        check_batch(self._guards.policy_of(who), counted)

    def request_lines(self, who: Identity) -> RequestLines | None:
        """The checks of what the caller sends to models; None when there are none."""
        policy = self._guards.policy_of(who)
        return RequestLines(policy) if policy else None

    async def answer_lines(self, file: File) -> AnswerLines | None:
        """The checks of a batch's output: those of whoever made the batch, as they are in force now. Raises Conflict
        when the version that made it is gone."""
        if file.batch_id is None:
            return None
        batch: Batch | None = await self.read(store.batch_of, file)
        terms = Terms() if batch is None or batch.terms is None else msgspec.convert(batch.terms, Terms)
        try:
            policy = self._guards.policy_for(file.tenant, terms.behaviour_digest)
        except (NotFound, Corrupt, InputError) as gone:  # not a 404: the file is there
            raise Conflict(
                f"what is in the file {file.id!r} cannot be checked: the version {terms.behaviour_digest!r}, whose "
                f"guardrails hold for it, cannot be loaded; nothing is lost, provider {file.provider!r} keeps the file",
                remedy="bring the version back with `lockgate lock` or `lockgate pull`, and fetch the file again",
            ) from gone
        return answer_lines(policy, "" if batch is None else batch.endpoint, terms)

    def note(
        self, exchange: Exchange, who: Identity, what: str, lines: RequestLines | AnswerLines, **more: Any
    ) -> None:
        """Write down what the checks of a file did: once for all its lines, as of one call."""
        # A thread may still be at it, when the client left in the middle.
        outcomes = [msgspec.structs.replace(one, findings=dict(one.findings)) for one in lines.outcomes]
        run = who.run
        agent = None if run is None else run.agent
        self._guards.tell(exchange, who, agent, outcomes)
        self._emit(
            Span(
                trace_id=exchange.trace_id if run is None else bytes.fromhex(run.trace_id),
                span_id=new_span_id(),
                parent_id=None if run is not None else exchange.parent_id,
                name=what,
                start_ns=exchange.started_ns,
                end_ns=time_ns(),
                status=ERROR if any(one.action == "block" for one in outcomes) else OK,
                run_id=None if run is None else run.run_id,
                agent=agent,
                effective_digest=None if run is None else run.effective_digest,
                attributes={
                    "lockgate.environment": who.environment,
                    "lockgate.tenant": who.tenant,
                    "lockgate.key": who.key_id,
                    "lockgate.request_id": exchange.request_id,
                    "lockgate.batch.requests": lines.requests,
                    ATTRIBUTE: [one.attributes() for one in outcomes],
                    **more,
                },
            )
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

        return await self.in_store(ask)

    async def write(self, change: Callable[..., Any], *arguments: Any) -> Any:
        """Change the store, in a transaction."""

        def make() -> Any:
            with self.control.write() as connection:
                return change(connection, *arguments)

        return await self.in_store(make)

    async def in_store(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do what uses the store, in a thread. Raises :class:`Unavailable` when the store is away."""
        try:
            return await asyncio.to_thread(work, *arguments)
        except _AWAY as failure:
            log.warning("files and batches: the store does not answer: %s", str(failure).partition("\n")[0])
            raise _away("the store does not answer") from failure

    async def check_writes(self) -> None:
        """Raises :class:`Unavailable` while the store takes no writes: before a provider is asked for what has to be
        written down. Whoever asks at the same time waits for the same answer, so that a store that is locked holds up
        one thread."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(self.write(store.touch))
            self._checking.add_done_callback(_seen)
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await asyncio.shield(self._checking)
        except TimeoutError as late:
            raise _away("the store takes no writes now") from late


def _seen(task: asyncio.Task[None]) -> None:
    """What it met is known, also when nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _away(what: str) -> Unavailable:
    return Unavailable(f"{what}: whose files and batches these are stands there", remedy="ask again in a while")


def is_id(id: str) -> bool:
    """Whether it could be a provider's name for something, and nothing else than that."""
    return _ID.fullmatch(id) is not None


def parameters(exchange: Exchange) -> dict[str, str]:
    """The query's parameters."""
    try:
        given = dict(parse_qsl(exchange.query, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise InputError(f"the query has more than {_MAX_PARAMETERS} parameters") from None
    for name, value in given.items():
        check_printable(name[:40], value)
    return given


def check_printable(name: str, value: str) -> None:
    """InputError for what not every database takes for a text."""
    if not value.isprintable():
        raise InputError(f"{name!r} is {value[:40]!r}", remedy="send what can be printed")


def whole_number(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A parameter from 1 to ``most``."""
    value = given.get(name)
    if value is None:
        return default
    if not value.isdecimal() or not 1 <= int(value[:9]) <= most:
        raise InputError(f"{name!r} is {value[:40]!r}", remedy=f"send 1 to {most}")
    return int(value)
