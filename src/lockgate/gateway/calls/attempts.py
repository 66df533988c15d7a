"""The attempts at one call: the upstream asked for, again where that is safe, and then those that take its place.

Each attempt holds its own worst case and settles alone: no retry, fallback or hedge escapes a budget. Nothing is
tried again once the client has been given a byte of an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import random

from lockgate.errors import InputError, LockgateError, Refused, UpstreamBusy, UpstreamError
from lockgate.gateway.access import check_model
from lockgate.gateway.calls import retries
from lockgate.gateway.calls.call import Attempt, Call
from lockgate.gateway.calls.passing import Declined, Passing
from lockgate.gateway.calls.record import Recorder
from lockgate.gateway.calls.retries import Trouble, Verdict
from lockgate.gateway.calls.seams import Meter, Router, TryAgain
from lockgate.gateway.http_request import ClientGone
from lockgate.gateway.model import Identity, RunClaims
from lockgate.gateway.names import Names
from lockgate.gateway.protocols.links import check_links
from lockgate.gateway.protocols.passages import passage_to
from lockgate.gateway.providers import Providers
from lockgate.gateway.upstream import Answer
from lockgate.gateway.upstreams.pool import Endpoint
from lockgate.limits.prices import FREE, Prices

FALLBACKS = "x-lockgate-fallbacks"
"""A header: models to try in order, ``provider/name, …``; or ``off``."""
MAX_FALLBACKS = 8

Step = tuple[str, str]
"""A provider, and its own name for a model."""

FallbacksOf = Callable[[RunClaims], dict[str, list[str]]]
"""What takes the place of a version's models: ``provider/name`` → ``provider/name``, in order."""


class Attempts:
    """Makes the attempts. One per worker."""

    def __init__(
        self,
        *,
        providers: Providers,
        prices: Prices,
        passing: Passing,
        meter: Meter,
        recorder: Recorder,
        permit: Callable[[Identity, str], None],
        fallbacks_of: FallbacksOf,
    ) -> None:
        self._providers = providers
        self._prices = prices
        self._passing = passing
        self._meter = meter
        self._recorder = recorder
        self._permit = permit
        self._fallbacks_of = fallbacks_of
        self._names = Names()
        self.router: Router | None = None

    async def answer(self, call: Call, *, keep: bool = False) -> tuple[bytes, str] | None:
        """Ask until one answers. Returns the answer and its content type if it is to be kept, and may be."""
        plan = self._plan(call)
        at = retry = 0
        repaired = False
        without: Endpoint | None = None
        earlier: tuple[Attempt | None, UpstreamError | Declined] | None = None
        while True:
            last = at + 1 == len(plan)
            attempt: Attempt | None = None
            failure: UpstreamError | Declined | None = None
            try:
                attempt = await self.begin(call, plan[at], without)
                if attempt.target.provider.hedge_after is None:
                    answer = await self._passing.open(attempt)
                else:
                    attempt, answer = await self._hedged(attempt, plan[at])
                return await self._passing.give(attempt, answer, may_switch=not last, keep=keep)
            except (asyncio.CancelledError, ClientGone):
                if attempt is not None:
                    is_cut = call.ends is not None and call.ends.cut
                    attempt.error_type = "time_exceeded" if is_cut else "client_gone"
                raise
            except TryAgain as again:
                if repaired:
                    raise UpstreamError("an answer was to be asked for more than twice", sent=True) from again
                repaired, call.request = True, again.request
            except Declined as declined:
                failure = declined.with_traceback(None)  # it would keep alive what the attempt had in hand
                assert attempt is not None
                attempt.error_type, attempt.error = str(declined.status), declined.text
                trouble = Trouble(attempt.sent, declined.status, declined.retry_after)
            except LockgateError as error:
                if attempt is not None:
                    error.message = attempt.target.masked(error.message)
                    attempt.error_type, attempt.error = error.code, error.message
                if call.exchange.answered:
                    raise
                if isinstance(error, InputError | Refused) and earlier is not None:  # this one cannot take its place
                    call.attributes["lockgate.fallback.skipped"] = f"{'/'.join(plan[at])}: {error.message}"
                    if last:
                        self._give_up(*earlier)
                        return None
                    at += 1
                elif isinstance(error, UpstreamError):
                    failure = error.with_traceback(None)
                    trouble = Trouble(error.sent)
                else:
                    raise
            finally:
                if attempt is not None:
                    self.end(attempt)
            if failure is None:  # the same step with a mended request, or another step
                continue
            earlier = attempt, failure
            verdict: Verdict = "next" if isinstance(failure, UpstreamBusy) else retries.verdict(trouble)
            if attempt is not None and verdict != "stop" and retry < attempt.target.provider.retries:
                wait = self._pause(attempt, verdict, trouble, retry + 1)
                if wait is not None:
                    retry, without = retry + 1, attempt.endpoint
                    if wait:
                        await asyncio.sleep(wait)
                    continue
            if verdict == "stop" or last:
                self._give_up(attempt, failure)
                return None
            at, retry, without = at + 1, 0, None

    async def begin(self, call: Call, step: Step, without: Endpoint | None = None) -> Attempt:
        """An attempt at a step, with a place at one of its upstreams. Ends with :meth:`end`, whatever happens."""
        provider, model = step
        if call.attempts or model != call.model or provider != call.provider or call.was_routed:
            self._permit(call.identity, f"{provider}/{model}")  # another than was asked for, or killed meanwhile
        version = None if call.identity.run is None else call.identity.run.effective_digest
        asked = call.identity.environment, provider, call.agent, version
        group = self._providers.known(*asked) or await self._providers.group(*asked)
        kind, dialect = group.provider.kind, call.request.dialect
        passage = passage_to(dialect, kind)
        price = FREE if dialect.is_free else self._prices.price(kind, provider, model)
        if (call.request.references or call.request.unbounded) and not group.provider.private_urls:
            names = check_links(call.request, fetched_here=kind == "any-llm")
            if names and group.is_near:
                await self._names.check(names)
        endpoint = group.pool.take_at_once() or await group.pool.take(without)
        target = group.targets.get(endpoint.id)
        if target is None:  # the project file changed while this call waited for its place
            group.pool.leave(endpoint)
            raise UpstreamBusy(f"provider {provider!r} was changed meanwhile", sent=False, retry_after=0.0)
        if call.notes and self.router is not None:
            self.router.directed(call, target.host)
        return Attempt(call, self._meter, target, model, passage, price, group.pool, endpoint)

    def end(self, attempt: Attempt) -> None:
        """Give the place back, settle what is still open, and write the attempt down."""
        attempt.settle()
        call = attempt.call
        call.outcome = attempt.outcome
        pool, endpoint = attempt.pool, attempt.endpoint
        pool.leave(endpoint)
        error = attempt.error_type
        if error is None or error == "no_usage":
            pool.answered(endpoint, attempt.seconds_to_headers)
        elif error in retries.UPSTREAMS_FAULT:
            self._blame(attempt)
        elif error == "429":
            pool.refused(endpoint)
        else:
            pool.unclear(endpoint)
        if self.router is not None:
            self.router.settled(attempt)
        self._recorder.attempt(attempt)

    def _blame(self, attempt: Attempt) -> None:
        """The upstream failed. Where it answered, the request itself may be why: then one call speaks against it once,
        or two of them, tried again and again, would switch it off for everybody."""
        blamed = attempt.call.notes.setdefault("blamed", set())
        if attempt.status and attempt.endpoint in blamed:
            attempt.pool.unclear(attempt.endpoint)
        else:
            attempt.pool.failed(attempt.endpoint)
        blamed.add(attempt.endpoint)

    def _plan(self, call: Call) -> list[Step]:
        """Whom to ask, in order: the model asked for, and those that take its place."""
        plan = [(call.provider, call.model)]
        given = call.exchange.headers.get(FALLBACKS)
        if given is not None:
            names = [] if given.strip() == "off" else [name.strip() for name in given.split(",") if name.strip()]
            if len(names) > MAX_FALLBACKS:
                raise InputError(f"{FALLBACKS} names {len(names)} models", remedy=f"name at most {MAX_FALLBACKS}")
            for name in names:
                if not all(name.partition("/")):
                    raise InputError(f"{FALLBACKS} names {name!r}", remedy="name provider/model, by commas; or 'off'")
                check_model(call.identity, name)
                self._providers.of(call.identity.environment, named(name)[0], call.agent, call.effective_digest)
        elif call.run is not None:
            fallbacks = self._fallbacks_of(call.run)
            names = fallbacks.get(f"{call.provider}/{call.model}", [])
            if call.was_routed:  # the model that was asked for can do what the one chosen for it could
                names = [*names, call.request.model, *fallbacks.get(call.request.model, [])]
        else:
            return plan
        for name in names:
            step = named(name)
            if step not in plan:
                plan.append(step)
        return plan

    def _pause(self, attempt: Attempt, verdict: Verdict, trouble: Trouble, retry: int) -> float | None:
        """Seconds until the same model is tried again; 0 at another upstream of its provider, None for never."""
        elsewhere = len(attempt.pool.endpoints) > 1
        if verdict == "next":
            return 0.0 if elsewhere and retry == 1 else None
        if elsewhere and not trouble.sent and attempt.pool.has_other(attempt.endpoint):
            return 0.0
        provider = attempt.target.provider
        left = provider.timeout - (time.time_ns() - attempt.call.exchange.started_ns) / 1e9
        return retries.pause(retry, trouble, left=left, chance=random())  # noqa: S311

    def _give_up(self, attempt: Attempt | None, failure: UpstreamError | Declined) -> None:
        if isinstance(failure, Declined):
            assert attempt is not None
            self._passing.decline(attempt, failure)
            return
        raise failure

    # --- hedging ----------------------------------------------------------------------------------------------

    async def _hedged(self, first: Attempt, step: Step) -> tuple[Attempt, Answer]:
        """The attempt whose answer begins first: a second one is made when the first takes long.

        The one that loses is cancelled, and charged in full: what came of it is unknown.
        """
        racing: dict[asyncio.Future[Answer], Attempt] = {asyncio.ensure_future(self._passing.open(first)): first}
        won: asyncio.Future[Answer] | None = None
        try:
            done, _ = await asyncio.wait(racing, timeout=first.target.provider.hedge_after)
            if not done:
                second = await self._second(first, step)
                if second is not None:
                    racing[asyncio.ensure_future(self._passing.open(second))] = second
            pending = set(racing)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                won = next((task for task in done if not task.exception()), None)
                if won is not None:
                    return racing[won], won.result()
            return first, next(iter(racing)).result()  # raises what the first one met
        finally:
            await self._end_losers(racing, first, won)

    async def _second(self, first: Attempt, step: Step) -> Attempt | None:
        if not first.pool.has_other(first.endpoint):
            return None
        try:
            attempt = await self.begin(first.call, step, first.endpoint)
        except UpstreamError:
            return None
        attempt.is_hedge = True
        return attempt

    async def _end_losers(
        self, racing: dict[asyncio.Future[Answer], Attempt], first: Attempt, won: asyncio.Future[Answer] | None
    ) -> None:
        losers = [task for task in racing if task is not won]
        for task in losers:
            task.cancel()
        results = await asyncio.gather(*losers, return_exceptions=True)
        for task, result in zip(losers, results, strict=True):
            attempt = racing[task]
            if isinstance(result, Answer):
                result.close()
            if won is None and attempt is first:
                continue  # the caller ends it, with what it met
            if isinstance(result, Declined):
                attempt.error_type, attempt.error = str(result.status), result.text
            elif isinstance(result, LockgateError):
                attempt.error_type, attempt.error = result.code, attempt.target.masked(result.message)
            else:
                attempt.error_type = "hedge_lost"
            self.end(attempt)


def named(model: str) -> Step:
    """The provider and the name in ``provider/name``."""
    provider, slash, name = model.partition("/")
    if not slash or not name:
        raise InputError(
            f"'model' is {model!r}",
            remedy="write provider/name, such as openai/gpt-4o-mini, or agent:name to run an agent",
        )
    return provider, name
