"""The only way a run acts: model calls and tool calls, each counted, journaled, ruled on and traced.

Steps of one run happen one after another, also when its code asks for several at once: that order is what makes
an exact replay possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from lockgate.clock import Clock
from lockgate.errors import Diverged, LockgateError, Refused, RunFailed, ToolFailed
from lockgate.money import to_nano
from lockgate.results import ToolUse, Usage
from lockgate.runtime.calling import call_function
from lockgate.runtime.failures import PASSING, model_failure
from lockgate.runtime.journal import Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import Completion, ModelClient, Step, wire_name
from lockgate.runtime.tracing import Tracer
from lockgate.tools.contracts import argument_problem, plain, result_problem
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, ModelRef, ToolContract

MODEL_TIMEOUT = 120.0
"""Seconds until one model call is given up, where the run's own limit leaves that much."""


class Suspend(BaseException):
    """The run must end here and wait for a person. Not an Exception: an agent's code must not swallow it."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(approval_id)
        self.approval_id = approval_id


class Answer(NamedTuple):
    """A tool call answered without carrying it out. ``stubbed``: an intention only; ``replayed``: from the record."""

    result: Any = None
    error_type: str | None = None
    error: str | None = None
    stubbed: bool = False
    replayed: bool = False


class ToolMode(Protocol):
    """What kind of run this is, as far as tools go: live, an eval, or a shadow."""

    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> Answer | None:
        """None: carry the call out. ``asks`` says that it would need an approval. May raise :class:`RunFailed`."""
        ...


class Recorder(Protocol):
    """Where steps are kept. What ``started``, ``waiting`` and ``claim`` return is durable."""

    async def started(self, step: Step) -> None:
        """A write is about to happen."""
        ...

    async def ended(self, step: Step) -> None:
        """A step is done, failed or stubbed. Durable on return when its effect is ``write``."""
        ...

    async def waiting(self, step: Step, ruling: Ruling) -> Approval:
        """The step needs an approval: keep both in one transaction."""
        ...

    async def decision(self, step: Step) -> Approval:
        """The approval that a recorded step waits for."""
        ...

    async def claim(self, step: Step, approval: Approval) -> None:
        """Take the approved call, once. Raises :class:`~lockgate.errors.Refused` or ``Conflict``."""
        ...


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
    ) -> None:
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
        self.ended: BaseException | None = None
        """Why the run cannot go on. Raised again at every further step, so that code cannot go on regardless."""
        self.model_failure: RunFailed | None = None
        """Why the last model call failed (frameworks make an error of their own of it); None when it did not."""
        self._client = client
        self._code = code
        self._policy = policy
        self._mode = mode
        self._recorder = recorder
        self._clock = clock
        self._model_timeout = model_timeout
        self._deadline = time.monotonic() + version.limits.max_seconds
        self._turn_lock = asyncio.Lock()
        self._facts: Any = None

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
        async with self._turn():
            self._check_limits()
            body = plain(_parameters(model, self._tokens_left(), asked))
            name = wire_name(model)
            self.model_calls += 1
            step, fresh = self.journal.take("model", name, body, now=self._clock())
            if fresh:
                await self._complete(step, model, body)
                await self._recorder.ended(step)
            self.usage += step.usage
            self.cost_nano += step.cost_nano
            if step.status == "failed":
                raise RunFailed(step.error_type or "model_error", step.error or "the model call failed")
            return Completion(
                message=step.response["message"],
                usage=step.usage,
                cost_nano=step.cost_nano,
                model_served=step.response["model_served"],
                finish_reason=step.response["finish_reason"],
            )

    async def _complete(self, step: Step, model: ModelRef, body: dict[str, Any]) -> None:
        """Fill in ``step`` with what came of the call. Raises nothing but a cancellation."""
        timeout = max(0.001, min(self._model_timeout, self._deadline - time.monotonic()))
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
            problem = _message_problem(completion.message)
            failure = RunFailed("model_invalid", f"model {step.name!r}: {problem}") if problem else None
        except (LockgateError, TimeoutError) as error:
            failure = model_failure(error, model=step.name, timeout=timeout)
        self._end(step, failure)
        if not self._client.records_spans:
            self.tracer.chat(step, model, started_ns)

    # --- tools ------------------------------------------------------------------------------------------------

    async def tool(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Call one of the version's tools and return its result.

        Raises :class:`ToolFailed` when the call gave none (refused, invalid, raised, timed out): the run may go on.
        """
        async with self._turn():
            if self.tool_calls >= self.version.limits.max_tool_calls:
                self._stop("tool_calls_exceeded", f"max_tool_calls is {self.version.limits.max_tool_calls}")
            self._check_time()
            self.tool_calls += 1
            try:
                asked = plain({} if arguments is None else arguments)
            except (TypeError, ValueError) as problem:
                raise ToolFailed("invalid_arguments", f"tool {name!r}: {problem}") from None
            contract = self.version.tool(name)
            effect = contract.effect if contract else None
            step, fresh = self.journal.take("tool", name, asked, effect=effect, now=self._clock())
            if step.status in ("started", "waiting"):
                started_ns = time.time_ns()
                try:
                    await self._settle(step, contract, asked, fresh)
                finally:
                    if step.status != "waiting":
                        self.tracer.tool(step, started_ns)
            return self._account(step)

    async def _settle(self, step: Step, contract: ToolContract | None, arguments: Any, fresh: bool) -> None:
        """Bring a step that is new, or was waiting, to its end."""
        approval: Approval | None = None
        if not fresh:
            approval = await self._decided(step)
        answer = None
        failure = self._call_problem(contract, arguments)
        if failure is None:
            assert contract is not None
            ruling = self._rule(contract, arguments)
            if ruling.effect == "deny":
                failure = ToolFailed("policy_refused", f"tool {contract.name!r} was refused: {ruling.reason}")
            elif approval is None:
                answer = await self._mode.answer(contract, arguments, asks=ruling.effect == "approval")
                if answer is None and ruling.effect == "approval":
                    step.status = "waiting"
                    approval = await self._recorder.waiting(step, ruling)
                    self.ended = Suspend(approval.id)
                    raise self.ended
        if failure is None and approval is not None:
            failure = await self._claimed(step, approval)
        if failure is None and answer is None:
            assert contract is not None
            failure = await self._carry_out(step, contract, arguments, durable=approval is not None)
        if answer is not None:
            self._apply(step, answer)
        else:
            self._end(step, failure)
        await self._recorder.ended(step)
        if failure is not None and not isinstance(failure, ToolFailed):
            self.ended = failure
            raise failure

    async def _decided(self, step: Step) -> Approval:
        """The decision a resumed run comes back to; suspends again while there is none."""
        if step.status == "started":
            self._stop("outcome_unknown", f"tool {step.name!r} was being called when the run was cut off")
        approval = await self._recorder.decision(step)
        if approval.status == "pending":
            self.ended = Suspend(approval.id)
            raise self.ended
        return approval

    async def _claimed(self, step: Step, approval: Approval) -> RunFailed | None:
        try:
            await self._recorder.claim(step, approval)
        except Refused as refusal:
            word = "approval_expired" if "expired" in refusal.message else "approval_rejected"
            return ToolFailed(word, refusal.message)
        step.status = "started"
        return None

    def _call_problem(self, contract: ToolContract | None, arguments: Any) -> RunFailed | None:
        if contract is None or contract.python is None:
            known = ", ".join(repr(tool.name) for tool in self.version.tools if tool.python)
            return ToolFailed("unknown_tool", f"there is no such tool to call; there are {known or 'none'}")
        problem = argument_problem(contract, arguments)
        return ToolFailed("invalid_arguments", f"tool {contract.name!r}: {problem}") if problem else None

    def _rule(self, contract: ToolContract, arguments: dict[str, Any]) -> Ruling:
        return self._policy.rule(
            self.version.agent,
            contract,
            arguments,
            environment=self.environment,
            facts=self._facts,
            facts_schema=self.version.guardrails.output_schema,
        )

    async def _carry_out(
        self, step: Step, contract: ToolContract, arguments: dict[str, Any], *, durable: bool
    ) -> RunFailed | None:
        """Call the function. A write is recorded first, and is finished even when the run is cancelled meanwhile."""
        if contract.effect != "write" and not durable:
            return await self._call(step, contract, arguments)
        if not durable:
            await self._recorder.started(step)
        call = asyncio.ensure_future(self._call(step, contract, arguments))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await _uncancelled(self._finish_cancelled(step, call))
            raise

    async def _finish_cancelled(self, step: Step, call: asyncio.Future[RunFailed | None]) -> None:
        self._end(step, await call)
        await self._recorder.ended(step)

    async def _call(self, step: Step, contract: ToolContract, arguments: dict[str, Any]) -> RunFailed | None:
        assert contract.python is not None
        writes = contract.effect == "write"
        try:
            function = self._code.tool(contract.python)
            async with asyncio.timeout(contract.timeout) as limit:
                result = plain(await call_function(function, **arguments))
        except RunFailed as failure:  # the code cannot be loaded
            return failure
        except TimeoutError as error:
            late = limit.expired()
            said = f"took longer than {contract.timeout:g} s" if late else f"raised TimeoutError: {error}"
            if writes:
                return RunFailed("outcome_unknown", f"tool {contract.name!r} {said}; whether it wrote is unknown")
            return ToolFailed("tool_timeout", f"tool {contract.name!r} {said}")
        except (Exception, SystemExit) as error:  # the agent's own code: anything may come out of it
            return ToolFailed("tool_failed", f"tool {contract.name!r} raised {type(error).__name__}: {error}")
        step.response = result
        problem = None if writes else result_problem(contract, result)
        return ToolFailed("invalid_result", f"tool {contract.name!r} returned {problem}") if problem else None

    # --- the handler ------------------------------------------------------------------------------------------

    async def handle(self, output: Any) -> Any:
        """Give the model's output to the version's handler, which may call the other tools; returns its answer."""
        name = self.version.handler
        contract = self.version.tool(name) if name else None
        if contract is None or contract.python is None:
            raise RunFailed("code_error", f"the handler {name!r} has no contract that names a Python function")
        function = self._code.tool(contract.python)
        loop = asyncio.get_running_loop()

        async def call(tool: str, **arguments: Any) -> Any:
            return await self.tool(tool, arguments)

        def blocking_call(tool: str, **arguments: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(self.tool(tool, arguments), loop).result()

        started_ns = time.time_ns()
        self._facts = output
        error: str | None = "interrupted"
        try:
            caller = call if asyncio.iscoroutinefunction(function) else blocking_call
            answer = plain(await call_function(function, output, caller))
            error = None
            return answer
        except LockgateError as failure:
            error = str(failure)
            raise
        except (Exception, SystemExit) as problem:  # the agent's own code: anything may come out of it
            error = f"handler {name!r} raised {type(problem).__name__}: {problem}"
            raise RunFailed("handler_failed", error) from problem
        finally:
            self._facts = None
            self.tracer.handler(str(name), started_ns, error)

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

    def _end(self, step: Step, failure: RunFailed | None) -> None:
        step.status = "done" if failure is None else "failed"
        if failure is not None:
            step.error_type, step.error = failure.error_type, failure.message
        step.ended_at = self._clock()

    def _apply(self, step: Step, answer: Answer) -> None:
        step.status = "stubbed" if answer.stubbed else "done" if answer.error_type is None else "failed"
        step.response, step.error_type, step.error = answer.result, answer.error_type, answer.error
        step.replayed = answer.replayed
        step.ended_at = self._clock()

    def _account(self, step: Step) -> Any:
        """What the caller of a tool gets for an ended step."""
        self.replayed_calls += step.replayed
        failed = step.error_type is not None
        result = None if failed else step.response
        self.tools_used.append(ToolUse(name=step.name, arguments=step.request, result=result, error=step.error))
        if failed:
            raise ToolFailed(step.error_type or "tool_failed", step.error or "the tool call failed")
        return plain(step.response)


async def _uncancelled(work: Coroutine[Any, Any, None]) -> None:
    """Wait for ``work`` to its end, however often this task is cancelled meanwhile (the caller raises afterwards)."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


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
