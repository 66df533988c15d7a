"""The only way a run acts: model calls and tool calls, each counted, journaled, ruled on and traced.

Steps of one run happen one after another, also when its code asks for several at once: that order is what makes
an exact replay possible. In a replay, the nodes of a graph that run at once come in another order than they were
recorded in; each waits for its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from lockgate.clock import Clock
from lockgate.errors import Diverged, LockgateError, RunFailed, ToolFailed
from lockgate.money import to_nano
from lockgate.results import ToolUse, Usage
from lockgate.runtime.failures import PASSING, model_failure
from lockgate.runtime.journal import Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import (
    Completion,
    ModelClient,
    Purse,
    Recorder,
    Step,
    StepKind,
    Suspend,
    ToolMode,
    wire_name,
)
from lockgate.runtime.toolcalls import Fate, ToolCalls, end_step
from lockgate.runtime.tracing import Tracer
from lockgate.tools.contracts import plain
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, ModelRef

MODEL_TIMEOUT = 120.0
"""Seconds until one model call is given up, where the run's own limit leaves that much."""

PATIENCE = 10.0
"""Seconds that a step which comes before its turn waits for the others, from the last one that came."""


class RunContext:
    """One run in progress. An agent's own code uses :meth:`model` and :meth:`tool`, and the public counters."""

    def __init__(
        self,
        version: AgentVersion,
        client: ModelClient,
        *,
        code: Code,
        policy: Policy,
        mode: ToolMode,
        recorder: Recorder,
        journal: Journal,
        tracer: Tracer,
        clock: Clock,
        environment: str,
        run_id: str = "",
        model_timeout: float = MODEL_TIMEOUT,
        recheck: Callable[[Step, Fate], str | None] | None = None,
        cut_off: bool = False,
        allowed: Sequence[str] | None = None,
        purse: Purse | None = None,
    ) -> None:
        """``allowed``: the tools that the run's caller may have called, None for any; ``purse`` holds for paid ones.
        ``cut_off``: the record ends before the run did, so steps asked for at once with its last may be missing.

        ``recheck`` (of a replay) is shown each tool call that the record answers, with what the version would make
        of it; what it returns says how the two differ."""
        self.version = version
        self.run_id = run_id
        self.environment = environment
        self.journal = journal
        self.tracer = tracer
        self.usage = Usage()
        self.cost_nano = 0
        self.model_calls = 0
        self.tool_calls = 0
        self.iterations = 0
        self.replayed_calls = 0
        self.tools_used: list[ToolUse] = []
        self.served: dict[str, str] = {}
        """By model as asked for: what the provider says answered, the last time."""
        self.ended: BaseException | None = None
        """Why the run cannot go on. Raised again at every further step, so that code cannot go on regardless."""
        self.model_failure: RunFailed | None = None
        """Why the last model call failed (frameworks make an error of their own of it); None when it did not."""
        self._client = client
        self._code = code
        self._recorder = recorder
        self._clock = clock
        self._model_timeout = model_timeout
        self._recheck = recheck
        self._deadline = time.monotonic() + version.limits.max_seconds
        self._turn_lock = asyncio.Lock()
        self._at_once = version.framework.kind != "native"
        self._cut_off = cut_off
        self._taken = asyncio.Event()
        self._moved = 0.0
        self._facts: Any = None
        self._calls = ToolCalls(
            version,
            code=code,
            policy=policy,
            mode=mode,
            recorder=recorder,
            clock=clock,
            environment=environment,
            allowed=allowed,
            purse=purse,
        )

    @property
    def code(self) -> Code:
        """The version's own code."""
        return self._code

    # --- models -----------------------------------------------------------------------------------------------

    async def model(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] = (),
        response_format: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Completion:
        """Ask the version's model, then its fallbacks. ``parameters`` override the version's (chat-completions names).

        Raises :class:`RunFailed`.
        """
        extra: dict[str, Any] = dict(parameters)
        if tools:
            extra["tools"] = list(tools)
        if response_format is not None:
            extra["response_format"] = response_format
        candidates = (self.version.model, *self.version.fallbacks)
        for number, model in enumerate(candidates, 1):
            try:
                completion = await self._ask(model, {"messages": list(messages), **extra})
                self.model_failure = None
                return completion
            except RunFailed as failure:
                self.model_failure = failure
                if failure.error_type not in PASSING or number == len(candidates) or self._out_of_time():
                    raise
        raise AssertionError("a version has at least one model")

    async def _ask(self, model: ModelRef, asked: dict[str, Any]) -> Completion:
        name, since = wire_name(model), time.monotonic()
        while True:
            async with self._turn():
                self._check_limits()
                body = plain(_parameters(model, self._tokens_left(), asked))
                if not self._early("model", name, body, since):
                    return await self._answer(model, name, body)
            await self._others(since)

    async def _answer(self, model: ModelRef, name: str, body: dict[str, Any]) -> Completion:
        self.model_calls += 1
        step, fresh = self._take("model", name, body)
        wait = None
        if fresh:
            wait = await self._complete(step, model, body)
            await self._recorder.ended(step)
        self.usage += step.usage
        self.cost_nano += step.cost_nano
        if step.status == "failed":
            raise RunFailed(step.error_type or "model_error", step.error or "the model call failed", retry_after=wait)
        if not step.response.get("stands_in"):
            revision = (step.response["model_served"], step.response.get("fingerprint"))
            self.served[name] = " ".join(part for part in revision if part)
        return Completion(
            message=step.response["message"],
            usage=step.usage,
            cost_nano=step.cost_nano,
            model_served=step.response["model_served"],
            finish_reason=step.response["finish_reason"],
        )

    async def _complete(self, step: Step, model: ModelRef, body: dict[str, Any]) -> float | None:
        """Fill in ``step`` with what came of the call; gives the seconds to wait where a limit stopped it.

        Raises nothing but a cancellation.
        """
        left = self._deadline - time.monotonic()
        timeout = max(0.001, min(self._model_timeout, left))
        started_ns = time.time_ns()
        try:
            async with asyncio.timeout(timeout):
                completion = await self._client.complete(model, body, timeout=timeout)
            step.usage, step.cost_nano = completion.usage, completion.cost_nano
            step.response = {
                "message": completion.message,
                "model_served": completion.model_served,
                "finish_reason": completion.finish_reason,
            }
            if completion.fingerprint is not None:
                step.response["fingerprint"] = completion.fingerprint
            if completion.stands_in:
                step.response["stands_in"] = True
            problem = _message_problem(completion.message)
            failure = RunFailed("model_invalid", f"model {step.name!r}: {problem}") if problem else None
        except (LockgateError, TimeoutError) as error:
            step.cost_nano = getattr(error, "paid_nano", 0)
            if isinstance(error, TimeoutError) and left <= self._model_timeout:  # it is the run that took too long
                limit = self.version.limits.max_seconds
                failure = RunFailed(
                    "time_exceeded", f"max_seconds is {limit:g}, and model {step.name!r} had not answered by then"
                )
            else:
                failure = model_failure(error, model=step.name, timeout=timeout)
        end_step(step, failure, now=self._clock())
        if not self._client.records_spans:
            self.tracer.chat(step, model, started_ns)
        return None if failure is None else failure.retry_after

    # --- tools ------------------------------------------------------------------------------------------------

    async def tool(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Call one of the version's tools and return its result.

        Raises :class:`ToolFailed` when the call gave none (refused, invalid, raised, timed out): the run may go on.
        """
        since = time.monotonic()
        while True:
            async with self._turn():
                if self.tool_calls >= self.version.limits.max_tool_calls:
                    self._stop("tool_calls_exceeded", f"max_tool_calls is {self.version.limits.max_tool_calls}")
                self._check_time()
                try:
                    asked = plain({} if arguments is None else arguments)
                except (TypeError, ValueError) as problem:
                    self.tool_calls += 1
                    raise ToolFailed("invalid_arguments", f"tool {name!r}: {problem}") from None
                if not self._early("tool", name, asked, since):
                    return await self._call(name, asked)
            await self._others(since)

    async def _call(self, name: str, asked: dict[str, Any]) -> Any:
        self.tool_calls += 1
        contract = self.version.tool(name)
        step, fresh = self._take("tool", name, asked, effect=contract.effect if contract else None)
        if not fresh and self._recheck is not None:
            difference = self._recheck(step, self._calls.fate(step, self._facts))
            if difference is not None:
                step, fresh = self.journal.diverge(step, difference, now=self._clock()), True
        if step.status in ("started", "waiting"):
            await self._settle(step, fresh)
        return self._account(step)

    async def _settle(self, step: Step, fresh: bool) -> None:
        started_ns = time.time_ns()
        try:
            await self._calls.settle(step, fresh=fresh, facts=self._facts)
        except (Suspend, LockgateError) as end:
            self.ended = end
            raise
        finally:
            if step.status == "started" and step.effect == "write" and self.ended is None:
                self.ended = RunFailed("outcome_unknown", f"the call of tool {step.name!r} was cut off")
            if step.status != "waiting":
                self.tracer.tool(step, started_ns)

    @contextmanager
    def about(self, facts: Any) -> Iterator[None]:
        """Tool calls in this block are ruled on with these facts: the model's answer, while a handler works on it."""
        self._facts = facts
        try:
            yield
        finally:
            self._facts = None

    # --- steps that are asked for at once ---------------------------------------------------------------------

    def _take(self, kind: StepKind, name: str, request: Any, *, effect: str | None = None) -> tuple[Step, bool]:
        taken = self.journal.take(kind, name, request, effect=effect, now=self._clock())
        self._moved = time.monotonic()
        self._taken.set()
        self._taken = asyncio.Event()
        return taken

    def _early(self, kind: StepKind, name: str, request: Any, since: float) -> bool:
        """Whether this step has to wait for others that were recorded before it, and still may."""
        if not self._at_once or time.monotonic() >= self._patient_until(since):
            return False
        return self.journal.early(kind, name, request, cut_off=self._cut_off)

    async def _others(self, since: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patient_until(since) - time.monotonic()):
                await self._taken.wait()

    def _patient_until(self, since: float) -> float:
        return max(since, self._moved) + PATIENCE

    # --- limits and bookkeeping -------------------------------------------------------------------------------

    def iterate(self) -> bool:
        """Count one more repair or refinement; False when ``max_iterations`` is reached."""
        if self.iterations >= self.version.limits.max_iterations:
            return False
        self.iterations += 1
        return True

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._turn_lock:
            if self.ended is not None:
                raise self.ended
            try:
                yield
            except Diverged as diverged:
                self.ended = diverged
                raise

    def _check_limits(self) -> None:
        limits = self.version.limits
        if self.model_calls >= limits.max_llm_calls:
            self._stop("llm_calls_exceeded", f"max_llm_calls is {limits.max_llm_calls}")
        if self._tokens_left() <= 0:
            used = self.usage.total_tokens
            self._stop("tokens_exceeded", f"{used} tokens are used, max_tokens_per_run is {limits.max_tokens_per_run}")
        if limits.max_usd_per_run is not None and self.cost_nano >= to_nano(limits.max_usd_per_run):
            self._stop("cost_exceeded", f"max_usd_per_run is {limits.max_usd_per_run:g}")
        self._check_time()

    def _check_time(self) -> None:
        if self._out_of_time():
            self._stop("time_exceeded", f"max_seconds is {self.version.limits.max_seconds:g}")

    def _out_of_time(self) -> bool:
        return time.monotonic() >= self._deadline

    def _tokens_left(self) -> int:
        return self.version.limits.max_tokens_per_run - self.usage.total_tokens

    def _stop(self, error_type: str, message: str) -> None:
        self.ended = RunFailed(error_type, message, remedy="budgets in the agent file set the limits of a run")
        raise self.ended

    def _account(self, step: Step) -> Any:
        """What the caller of a tool gets for an ended step."""
        self.replayed_calls += step.replayed
        self.cost_nano += step.cost_nano
        failed = step.error_type is not None
        result = None if failed else step.response
        self.tools_used.append(ToolUse(name=step.name, arguments=step.request, result=result, error=step.error))
        if failed:
            raise ToolFailed(step.error_type or "tool_failed", step.error or "the tool call failed")
        return plain(step.response)


def _parameters(model: ModelRef, tokens_left: int, asked: dict[str, Any]) -> dict[str, Any]:
    """The version's parameters by their names in chat completions, under what is asked for; ``max_tokens`` is the
    least of version, request and what the run has left."""
    given = {"temperature": model.temperature, "top_p": model.top_p, "seed": model.seed, "stop": list(model.stop)}
    body = {name: value for name, value in given.items() if value not in (None, [])} | asked
    wanted = asked.get("max_tokens")
    most = min(model.max_tokens, tokens_left)
    body["max_tokens"] = min(wanted, most) if isinstance(wanted, int) and wanted > 0 else most
    return body


def _message_problem(message: Any) -> str | None:
    """Why this is no assistant message, or None."""
    if not isinstance(message, dict):
        return f"the answer has no message: {message!r}"
    content = message.get("content")
    calls = message.get("tool_calls")
    if content is not None and not isinstance(content, (str, list)):
        return f"the content is neither text nor parts: {content!r}"
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        return f"tool_calls is not a list of objects: {calls!r}"
    return None
