"""A provider's upstreams as one worker sees them: who is asked next, who is left alone, who waits.

State is this worker's own: what it learns from its calls it needs no lock to use. Of breakers it hears from the other
workers too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from random import random
from time import monotonic

from lockgate.errors import UpstreamBusy
from lockgate.gateway.upstreams.balance import Load, Quota, choose, eject
from lockgate.gateway.upstreams.breaker import Breaker
from lockgate.project.model import ResolvedProvider

log = logging.getLogger(__name__)

RETRY_AFTER = 1.0
"""Seconds that a caller who found the queue full is asked to wait."""

Tell = Callable[[str, str, bool], None]
"""``tell(provider, upstream, is_open)``: a breaker opened or closed."""


class Endpoint:
    """One upstream: its breaker, its load."""

    __slots__ = ("breaker", "id", "load")

    def __init__(self, id: str, breaker: Breaker, load: Load) -> None:
        self.id = id
        """Its base URL; with a number where several keys share one."""
        self.breaker = breaker
        self.load = load


class Pool:
    """The upstreams of one provider in one environment, in the order of the project file."""

    def __init__(self, provider: ResolvedProvider, ids: Sequence[str], tell: Tell, *, workers: int = 1) -> None:
        """``workers``: how many share the keys' quotas evenly."""
        self._workers = workers
        self.endpoints: list[Endpoint] = []
        self._name = provider.name
        self._tell = tell
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.configure(provider, ids)

    def configure(self, provider: ResolvedProvider, ids: Sequence[str]) -> None:
        """Take over a changed project file; what is known of an upstream that stays is kept."""
        known = {endpoint.id: endpoint for endpoint in self.endpoints}
        capacities = (provider.capacity, *(further.capacity for further in provider.upstreams))
        quotas = (provider.requests_per_minute, *(further.requests_per_minute for further in provider.upstreams))
        self.endpoints = []
        for id, capacity, quota in zip(ids, capacities, quotas, strict=True):
            endpoint = known.get(id) or Endpoint(id, Breaker(), Load())
            endpoint.breaker.threshold, endpoint.breaker.reset = provider.failure_threshold, provider.reset_timeout
            endpoint.load.capacity = capacity
            share = None if quota is None else quota / self._workers
            if share is None or endpoint.load.quota is None or endpoint.load.quota.per_minute != share:
                endpoint.load.quota = None if share is None else Quota(share)
            self.endpoints.append(endpoint)
        self._loads = [endpoint.load for endpoint in self.endpoints]
        self._queue, self._queue_timeout = provider.queue, provider.queue_timeout
        is_free = provider.capacity is None and provider.requests_per_minute is None
        self._alone = self.endpoints[0] if len(self.endpoints) == 1 and is_free else None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take_at_once(self) -> Endpoint | None:
        """The only upstream, where it is well and takes any number of calls; None where there is more to think of."""
        alone = self._alone
        if alone is None or alone.breaker.failures:
            return None
        alone.load.busy += 1
        return alone

    async def take(self, without: Endpoint | None = None) -> Endpoint:
        """The upstream to ask; its place has to be given back (:meth:`leave`).

        ``without``: one that just failed, taken only when there is no other. Raises :class:`UpstreamBusy` when all are
        switched off by their breakers, the queue is full, or a place did not become free in time.
        """
        endpoint = None if self._waiting else self._choose(without)  # who waits already goes first
        return endpoint or await self._wait(without)

    def has_other(self, endpoint: Endpoint) -> bool:
        """Whether another upstream than this one could take a call at once."""
        now = monotonic()
        return any(
            other is not endpoint and not other.load.is_full and other.breaker.would_allow(now)
            for other in self.endpoints
        )

    def leave(self, endpoint: Endpoint) -> None:
        """The call is over: the next one in the queue may go."""
        endpoint.load.busy -= 1
        if self._waiting:
            self._pass_on()

    def answered(self, endpoint: Endpoint, seconds: float) -> None:
        """It took the call, and said something that makes sense."""
        now = monotonic()
        if self._alone is None:
            endpoint.load.took(seconds, now)
        if endpoint.breaker.failures and endpoint.breaker.succeeded(now):
            self._tell(self._name, endpoint.id, False)

    def failed(self, endpoint: Endpoint) -> None:
        now = monotonic()
        endpoint.load.failed(now)
        if len(self.endpoints) > 1:
            for index in eject(self._loads, now):
                left_out = self.endpoints[index]
                seconds = left_out.load.ejected_until - now
                log.warning("provider %r: %s fails more often than the others, and is left out for %.0f s",
                            self._name, left_out.id, seconds)  # fmt: skip
        was_closed = endpoint.breaker.state(now) == "closed"
        if endpoint.breaker.failed(now) and was_closed:
            self._tell(self._name, endpoint.id, True)

    def heard(self, id: str, is_open: bool, at: float) -> None:
        """Another worker's breaker of this upstream opened, or closed."""
        for endpoint in self.endpoints:
            if endpoint.id == id:
                endpoint.breaker.heard(is_open, at)

    def refused(self, endpoint: Endpoint) -> None:
        """It is alive, and takes no more for now: another one may."""
        endpoint.load.failed(monotonic())
        self.unclear(endpoint)

    def unclear(self, endpoint: Endpoint) -> None:
        """The call ended without saying anything about the upstream: its client left."""
        if endpoint.breaker.failures:
            endpoint.breaker.forgot()

    def _choose(self, without: Endpoint | None) -> Endpoint | None:
        """None when there is no place. Raises UpstreamBusy when no breaker lets a call through."""
        now = monotonic()
        allowed = [index for index, endpoint in enumerate(self.endpoints) if endpoint.breaker.would_allow(now)]
        if not allowed:
            left = min(endpoint.breaker.seconds_left(now) for endpoint in self.endpoints)
            raise UpstreamBusy(
                f"provider {self._name!r} keeps failing and is left alone for another {max(1.0, left):.0f} s",
                sent=False,
                retry_after=max(RETRY_AFTER, left),
            )
        allowed = self._within_quota(allowed, now)
        usable = [index for index in allowed if self.endpoints[index] is not without] or allowed
        index = choose(self._loads, usable, now, random(), random())  # noqa: S311
        if index is None and len(usable) < len(allowed):
            index = choose(self._loads, allowed, now, random(), random())  # noqa: S311
        if index is None or not self.endpoints[index].breaker.allows(now):
            return None
        self._loads[index].busy += 1
        if (quota := self._loads[index].quota) is not None:
            quota.ask(now)
        return self.endpoints[index]

    def _within_quota(self, allowed: list[int], now: float) -> list[int]:
        """Those whose keys may ask now. Raises UpstreamBusy when none may: to wait in the queue would take minutes."""
        waits = [0.0 if (quota := self._loads[index].quota) is None else quota.wait(now) for index in allowed]
        within = [index for index, wait in zip(allowed, waits, strict=True) if wait <= 0]
        if not within:
            raise UpstreamBusy(
                f"what the keys of provider {self._name!r} may ask in a minute is used up",
                sent=False,
                retry_after=max(RETRY_AFTER, min(waits)),
            )
        return within

    async def _wait(self, without: Endpoint | None) -> Endpoint:
        until = monotonic() + self._queue_timeout
        while True:
            if len(self._waiting) >= self._queue:
                raise UpstreamBusy(
                    f"provider {self._name!r} is at its capacity, and {len(self._waiting)} calls wait already",
                    sent=False,
                    retry_after=RETRY_AFTER,
                )
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                async with asyncio.timeout(max(0.0, until - monotonic())):
                    await place
            except TimeoutError:
                raise UpstreamBusy(
                    f"provider {self._name!r} is at its capacity: no place became free in {self._queue_timeout:g} s",
                    sent=False,
                    retry_after=RETRY_AFTER,
                ) from None
            except asyncio.CancelledError:
                if place.done():  # it was given the place just now, and does not need it
                    self._pass_on()
                raise
            finally:
                if not place.done():
                    place.cancel()
                if place in self._waiting:
                    self._waiting.remove(place)
            try:
                endpoint = self._choose(without)
            except UpstreamBusy:
                self._pass_on()  # the others are to hear of it now, not when their time is up
                raise
            if endpoint is not None:
                return endpoint

    def _pass_on(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
