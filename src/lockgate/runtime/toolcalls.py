"""What becomes of one tool call: refused, answered without being made, put to a person, or made at most once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

import msgspec

from lockgate.clock import Clock
from lockgate.errors import LimitExceeded, LockgateError, Refused, RunFailed, ToolFailed
from lockgate.runtime.calling import call_function
from lockgate.runtime.failures import model_failure
from lockgate.runtime.loader import Code
from lockgate.runtime.model import Answer, Held, Purse, Recorder, Step, Suspend, ToolMode
from lockgate.tools.contracts import argument_problem, hash_of, plain, result_problem
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, ToolContract

LARGEST_RESULT = 1024 * 1024
"""Bytes of one result as JSON: it goes to the model, and into the record."""


Fate = Literal["unknown_tool", "invalid_arguments", "policy_refused", "approval", "call"]
"""What the version's contract and policy make of a call, before anything is asked of anybody."""


class ToolCalls:
    """Settles the tool calls of one run."""

    def __init__(
        self,
        version: AgentVersion,
        *,
        code: Code,
        policy: Policy,
        mode: ToolMode,
        recorder: Recorder,
        clock: Clock,
        environment: str,
        allowed: Sequence[str] | None = None,
        purse: Purse | None = None,
    ) -> None:
        """``allowed``: the tools that the run's caller may have called, None for any; ``purse`` holds for paid ones."""
        self._version = version
        self._allowed = allowed
        self._purse = purse
        self._code = code
        self._policy = policy
        self._mode = mode
        self._recorder = recorder
        self._clock = clock
        self._environment = environment
        cache = version.cache or {}
        self._kept: dict[str, tuple[float, float, Any]] | None = {} if cache.get("tools") else None
        """Reads by tool and arguments: until when they are kept, the seconds they took, what came of them; until this
        run writes something. None: every read is made."""
        self._kept_seconds: float = cache.get("ttl", 3600.0)

    async def settle(self, step: Step, *, fresh: bool, facts: Any) -> None:
        """Bring a step that is new, or that waited for a person, to its end; it is ``done``, ``failed`` or ``stubbed``.

        Raises :class:`~lockgate.runtime.model.Suspend`, and an error when the run cannot go on after this step.
        """
        approval = None if fresh else await self._decision(step)
        contract = self._version.tool(step.name)
        failure: RunFailed | None
        if contract is None or contract.python is None:
            known = ", ".join(repr(tool.name) for tool in self._version.tools if tool.python)
            failure = ToolFailed("unknown_tool", f"there is no tool {step.name!r} to call; there are {known or 'none'}")
        elif not self._may_call(step.name):
            failure = ToolFailed("policy_refused", f"this run's caller may not have the tool {step.name!r} called")
        elif problem := argument_problem(contract, step.request):
            failure = ToolFailed("invalid_arguments", f"tool {step.name!r}: {problem}")
        else:
            failure = await self._call_or_answer(step, contract, approval, facts)
        end_step(step, failure, now=self._clock())
        await self._recorder.ended(step)
        if failure is not None and not isinstance(failure, ToolFailed):
            raise failure

    def fate(self, step: Step, facts: Any) -> Fate:
        """What this version makes of a recorded call. Nothing is called."""
        contract = self._version.tool(step.name)
        if contract is None or contract.python is None:
            return "unknown_tool"
        if not self._may_call(step.name):
            return "policy_refused"
        if argument_problem(contract, step.request):
            return "invalid_arguments"
        match self._rule(contract, step, facts).effect:
            case "deny":
                return "policy_refused"
            case "approval":
                return "approval"
            case _:
                return "call"

    def _may_call(self, name: str) -> bool:
        return self._allowed is None or name in self._allowed

    def _rule(self, contract: ToolContract, step: Step, facts: Any) -> Ruling:
        return self._policy.rule(
            self._version.agent,
            contract,
            step.request,
            environment=self._environment,
            facts=facts,
            facts_schema=self._version.guardrails.output_schema,
        )

    async def _call_or_answer(
        self, step: Step, contract: ToolContract, approval: Approval | None, facts: Any
    ) -> RunFailed | None:
        ruling = self._rule(contract, step, facts)
        if ruling.effect == "deny":
            return ToolFailed("policy_refused", f"tool {contract.name!r} was refused: {ruling.reason}")
        if approval is not None:
            refusal = await self._claim(step, approval)
            return refusal or await self._make(step, contract, recorded=True)
        asks = ruling.effect == "approval"
        answer = await self._mode.answer(contract, step.request, asks=asks)
        if answer is not None:
            return _take(step, answer)
        if asks:
            step.status = "waiting"
            raise Suspend((await self._recorder.waiting(step, ruling)).id)
        return await self._make(step, contract, recorded=False)

    async def _decision(self, step: Step) -> Approval:
        """The decision a resumed run comes back to; suspends again while there is none."""
        if step.status == "started":
            raise RunFailed("outcome_unknown", f"tool {step.name!r} was being called when the run was cut off")
        approval = await self._recorder.decision(step)
        if approval.status == "pending":
            raise Suspend(approval.id)
        return approval

    async def _claim(self, step: Step, approval: Approval) -> ToolFailed | None:
        try:
            await self._recorder.claim(step, approval)
        except Refused as refusal:
            word = "approval_expired" if "expired" in refusal.message else "approval_rejected"
            return ToolFailed(word, refusal.message)
        step.status = "started"
        return None

    async def _make(self, step: Step, contract: ToolContract, *, recorded: bool) -> RunFailed | None:
        """Make the call. A write is recorded first, and is finished even when the run is cancelled meanwhile."""
        if contract.effect != "write" and not recorded:
            return await self._read_once(step, contract)
        if self._kept:
            self._kept.clear()  # whatever it writes, what was read before may have changed
        if not recorded:
            await self._recorder.started(step)
        call = asyncio.ensure_future(self._call(step, contract))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await _uncancelled(self._finish(step, call))
            raise

    async def _read_once(self, step: Step, contract: ToolContract) -> RunFailed | None:
        """Make a read, or take what the same one gave before."""
        if self._kept is None:
            return await self._call(step, contract)
        key = hash_of([contract.name, step.request])
        known = self._kept.get(key)
        if known is not None and self._clock() < known[0]:
            step.response, step.from_cache, step.saved_seconds = plain(known[2]), True, known[1]
            return None
        step.from_cache, began = False, time.monotonic()
        failure = await self._call(step, contract)
        if failure is None:
            until = self._clock() + self._kept_seconds
            self._kept[key] = until, time.monotonic() - began, plain(step.response)
        return failure

    async def _finish(self, step: Step, call: asyncio.Future[RunFailed | None]) -> None:
        end_step(step, await call, now=self._clock())
        await self._recorder.ended(step)

    async def _call(self, step: Step, contract: ToolContract) -> RunFailed | None:
        """Call the function, and put its result into the step. Raises nothing but a cancellation."""
        assert contract.python is not None
        try:
            function = self._code.tool(contract.python)
        except RunFailed as failure:  # the code cannot be loaded
            return failure
        held: Held | None = None
        if self._purse is not None:
            try:
                held = await self._purse.hold(contract.name)
            except (LockgateError, TimeoutError) as refusal:
                return _unpaid(contract, refusal)
        try:
            return await self._call_function(step, contract, function)
        finally:
            if held is not None and self._purse is not None:
                step.cost_nano = held.nano
                await _uncancelled(self._purse.settle(held))

    async def _call_function(
        self, step: Step, contract: ToolContract, function: Callable[..., Any]
    ) -> RunFailed | None:
        writes = contract.effect == "write"
        try:
            async with asyncio.timeout(contract.timeout) as limit:
                result = await call_function(function, **plain(step.request))
        except TimeoutError as error:
            late = limit.expired()
            said = f"took longer than {contract.timeout:g} s" if late else f"raised TimeoutError: {error}"
            if writes:
                return RunFailed("outcome_unknown", f"tool {contract.name!r} {said}; whether it wrote is unknown")
            return ToolFailed("tool_timeout", f"tool {contract.name!r} {said}")
        except (Exception, SystemExit) as error:  # the agent's own code: anything may come out of it
            return ToolFailed("tool_failed", f"tool {contract.name!r} raised {type(error).__name__}: {error}")
        step.response, problem = _read(contract, result)
        if (
            problem is None or writes
        ):  # a write has happened, whatever it returned: calling it a failure invites another
            return None
        return ToolFailed("invalid_result", f"tool {contract.name!r} returned {problem}")


def end_step(step: Step, failure: RunFailed | None, *, now: float) -> None:
    """Note how a step ended; one that was answered without being made has its status already."""
    if failure is not None:
        step.status, step.error_type, step.error = "failed", failure.error_type, failure.message
    elif step.status != "stubbed":
        step.status = "done"
    step.ended_at = now


def _take(step: Step, answer: Answer) -> ToolFailed | None:
    step.response, step.replayed = answer.result, answer.replayed
    if answer.stubbed:
        step.status = "stubbed"
    if answer.error_type is None:
        return None
    return ToolFailed(answer.error_type, answer.error or "the tool call failed")


def _read(contract: ToolContract, result: Any) -> tuple[Any, str | None]:
    """A result as it is recorded, and what is wrong with it."""
    try:
        encoded = msgspec.json.encode(result)
    except (TypeError, ValueError) as error:
        return repr(result)[:1000], f"what JSON cannot carry: {error}"
    if len(encoded) > LARGEST_RESULT:
        return encoded[:1000].decode("utf-8", "replace"), f"{len(encoded)} bytes, and {LARGEST_RESULT} are allowed"
    value = msgspec.json.decode(encoded)
    return value, result_problem(contract, value)


def _unpaid(contract: ToolContract, refusal: LockgateError | TimeoutError) -> RunFailed:
    """A call that was not made because what it costs could not be held."""
    if isinstance(refusal, LimitExceeded | Refused):
        return model_failure(refusal, model=contract.name, timeout=0.0)
    return ToolFailed("tool_failed", f"tool {contract.name!r} could not be paid for: {refusal}")


async def _uncancelled(work: Coroutine[Any, Any, None]) -> None:
    """Wait for ``work`` to its end, however often this task is cancelled meanwhile (the caller raises afterwards)."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
