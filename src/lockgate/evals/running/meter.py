"""What a trial may spend and has spent. Money is held before a call and settled after it, so that trials running at
the same time cannot pass the evaluation's limit together.

A trial's :class:`Meter` travels with its task (:data:`METER`): whoever sends a model call for the trial finds it
there, whether the agent, a simulated user or a judge asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from lockgate.errors import LimitExceeded, LockgateError, RunFailed, UpstreamError
from lockgate.evals.running.pace import Pace
from lockgate.evals.scorers.judge import Ask, JudgeReply
from lockgate.money import show_usd

JUDGE = "judge:"
"""What begins the key of a judge's calls: they are kept until its scores are there."""
WAITING_SHARE = 0.5
"""Of the time a call has, how much of it may go by waiting for a provider that limits its rate."""
FOR_A_PLACE = 0.02
"""Seconds between two looks for a place, where fewer calls may be under way than trials are."""


class Spend(msgspec.Struct, kw_only=True):
    """What one evaluation has spent on both versions and the judge, in nano-USD. Nothing is sent that could pass
    ``limit``; ``open`` is what trials under way have spent, ``held`` what calls under way may cost."""

    nano: int = 0
    limit: int | None = None
    open: int = 0
    held: int = 0
    refused: int = 0

    @property
    def reached(self) -> bool:
        return self.limit is not None and (self.refused > 0 or self.nano + self.open >= self.limit)

    @property
    def total(self) -> int:
        return self.nano + self.open

    async def hold(self, amount: int) -> None:
        """Hold the most a call can cost; waits for calls under way where these may leave enough.

        Raises :class:`LimitExceeded` when nothing under way could.
        """
        while self.limit is not None and self.nano + self.open + self.held + amount > self.limit:
            if not self.held:
                self.refused += 1
                raise LimitExceeded(
                    f"the call may cost {show_usd(amount)}, and of max_usd {show_usd(self.limit)} "
                    f"{show_usd(self.limit - self.nano - self.open)} is left",
                    limit="max_usd",
                    remedy="raise --max-usd, or lower the agent's max_tokens",
                )
            await asyncio.sleep(0.01)
        self.held += amount


def counted(ask: Ask, spend: Spend) -> Ask:
    """The judge, with what its answers cost put down to ``spend``."""

    async def asked(messages: list[dict[str, str]], schema: dict[str, Any], *, member: int = 0) -> JudgeReply:
        reply = await (ask(messages, schema, member=member) if member else ask(messages, schema))
        spend.nano += reply.cost_nano
        return reply

    return asked


class Vectored(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider of embeddings gave, and what that cost."""

    vectors: Any
    cost_nano: int = 0


AskVectors = Callable[[Sequence[str]], Awaitable[Vectored]]
"""Asks a provider for embeddings. Raises ``LockgateError`` when it cannot."""


def counted_vectors(ask: AskVectors, spend: Spend) -> Callable[[Sequence[str]], Awaitable[Any]]:
    """A provider's embeddings, with what they cost put down to ``spend``."""

    async def asked(texts: Sequence[str]) -> Any:
        reply = await ask(texts)
        spend.nano += reply.cost_nano
        return reply.vectors

    return asked


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What one trial may use: nano-USD and tokens, all its calls together. None: only the version's own limits."""

    nano: int | None = None
    tokens: int | None = None


class Meter:
    """One trial's."""

    def __init__(self, spend: Spend, pace: Pace, caps: Caps | None = None) -> None:
        self.spend = spend
        self.pace = pace
        self.caps = caps or Caps()
        self.nano = 0
        self.tokens = 0
        self._waited = 0.0
        self._waiting = 0
        self._since = 0.0
        self.recorded: dict[str, list[Any]] = {}
        """Calls that were paid for, in earlier attempts at this trial that were cut off and in this one, by what was
        asked."""
        self.asked: dict[str, int] = {}
        self.fresh: list[tuple[str, int, Any]] = []
        """Calls that were paid for and are not stored yet: what was asked, how many times before, the answer."""
        self.note: Callable[[str, int, Any], None] | None = None
        """Told of each as it comes."""
        self.refused = False  # with 429, which the pace knows of
        self.replayed_nano = 0

    @property
    def waited(self) -> float:
        """Seconds spent so far on waiting for a provider's rate limit: no part of how long the agent took."""
        return self._waited + (time.monotonic() - self._since if self._waiting else 0.0)

    @property
    def bounded(self) -> bool:
        """Whether the worst case of a call must be known before it is sent."""
        return self.spend.limit is not None or self.caps.nano is not None

    def replay(self, key: str) -> Any | None:
        """The recorded answer to what is asked now, if there is one; counts the question."""
        number = self.asked.get(key, 0)
        self.asked[key] = number + 1
        found = self.recorded.get(key)
        return found[number] if found is not None and number < len(found) else None

    def keep(self, key: str, answer: Any) -> None:
        """Note a fresh answer, to be stored while the trial is still under way."""
        call = (key, self.asked[key] - 1, answer)
        self.recorded.setdefault(key, []).append(answer)
        self.fresh.append(call)
        if self.note is not None:
            self.note(*call)

    async def call(
        self, send: Callable[[], Awaitable[Any]], *, bound: Callable[[], int], timeout: float, judge: bool = False
    ) -> Any:
        """Send one model call: within the trial's caps and the evaluation's money, at the provider's pace.

        ``send`` gives an answer with ``cost_nano`` and ``usage``; ``bound`` is the most it may cost. A call refused
        with 429 is sent again when the provider said, while there is time.
        """
        began, patience = time.monotonic(), WAITING_SHARE * timeout
        while True:
            while (pause := self.pace.pause) or self.pace.full:
                await self._wait(pause or FOR_A_PLACE, began, patience)
            amount = await self._hold(bound, judge) if self.bounded else 0
            sent_at = time.monotonic()
            self.pace.sending += 1
            unknown, failed = amount, True  # what the call is taken to have cost when nobody can tell
            try:
                answer = await send()
                unknown, failed = answer.cost_nano, False
                self.pace.succeeded()
                usage = getattr(answer, "usage", None)
                self.tokens += 0 if usage is None or judge else usage.total_tokens
                return answer
            except LockgateError as failure:
                if not _maybe_billed(failure):
                    unknown = 0
                if not _limited(failure):
                    raise
                self.refused = True
                wait = self.pace.limited(getattr(failure, "retry_after", None), sent_at=sent_at)
                if time.monotonic() - began + wait > patience:
                    raise
            finally:
                self.pace.sending -= 1
                self.spend.held -= amount
                if not judge:
                    self._add(unknown)
                elif failed:  # an answered judge is counted by who asked it
                    self.spend.nano += unknown

    def close(self) -> int:
        """The trial has ended: what it spent, in nano-USD, is no longer open."""
        self.spend.open -= self.nano
        spent, self.nano = self.nano, 0
        return spent

    def _add(self, nano: int) -> None:
        self.nano += nano
        self.spend.open += nano

    async def _hold(self, bound: Callable[[], int], judge: bool) -> int:
        amount = bound()
        cap = None if judge else self.caps.nano
        if cap is not None and self.nano + amount > cap:
            raise RunFailed(
                "trial_cost",
                f"the call may cost {show_usd(amount)}, and the trial has spent {show_usd(self.nano)} "
                f"of {show_usd(cap)}",
                remedy="evals.trial_max_usd is the cap of one trial",
            )
        if self.spend.limit is not None:
            await self.spend.hold(amount)
            return amount
        self.spend.held += amount
        return amount

    def check_tokens(self) -> int | None:
        """Tokens left to the trial; raises :class:`RunFailed` when there are none."""
        if self.caps.tokens is None:
            return None
        left = self.caps.tokens - self.tokens
        if left <= 0:
            raise self._out_of_tokens()
        return left

    def check_used(self) -> None:
        """Raises :class:`RunFailed` when an answer took more tokens than were left: a long input may."""
        if self.caps.tokens is not None and self.tokens > self.caps.tokens:
            raise self._out_of_tokens()

    def _out_of_tokens(self) -> RunFailed:
        return RunFailed(
            "trial_tokens",
            f"the trial has used {self.tokens} tokens of {self.caps.tokens}",
            remedy="evals.trial_max_tokens is the cap of one trial",
        )

    async def _wait(self, pause: float, began: float, patience: float) -> None:
        left = patience - (time.monotonic() - began)
        if pause > left:
            self.refused = True
            raise UpstreamError(
                f"the provider asks to wait {pause:.0f} s more, and the call has {max(0.0, left):.0f} s",
                sent=False,
                upstream_status=429,
            )
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += 1
        try:
            await asyncio.sleep(pause)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._waited += time.monotonic() - self._since


METER: ContextVar[Meter | None] = ContextVar("lockgate_trial_meter", default=None)
"""The meter of the trial that this task works for."""


def _limited(failure: LockgateError) -> bool:
    if isinstance(failure, LimitExceeded):
        return failure.retry_after is not None
    return isinstance(failure, UpstreamError) and failure.upstream_status in (429, 529)


def _maybe_billed(failure: LockgateError) -> bool:
    return isinstance(failure, UpstreamError) and failure.sent and failure.upstream_status is None
