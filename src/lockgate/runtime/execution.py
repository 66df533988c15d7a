"""One attempt of one run, from its input to a result: whatever happens inside, a result comes out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lockgate.errors import Diverged, LimitExceeded, LockgateError, RunFailed
from lockgate.results import RunResult, RunStatus
from lockgate.runtime.context import RunContext
from lockgate.runtime.model import Suspend
from lockgate.runtime.native import run_native
from lockgate.tools.contracts import schema_problem

log = logging.getLogger(__name__)


async def execute(ctx: RunContext, input: Any) -> RunResult:
    """Run the version on ``input``, within its limits. Raises nothing: a cancellation gives ``cancelled`` too.

    Who cancels must therefore look at the result, and not rely on CancelledError coming out.
    """
    started = time.monotonic()
    limits = ctx.version.limits
    output: Any = None
    status: RunStatus = "failed"
    failure: LockgateError | None = None
    approval_id: str | None = None
    try:
        async with asyncio.timeout(limits.max_seconds) as deadline:
            output = await _kind(ctx.version.framework.kind)(ctx, input)
            if ctx.ended is not None:  # the agent's code caught what stopped the run, and went on
                raise ctx.ended
            if ctx.version.framework.kind != "native":  # the native loop has its model repair what does not fit
                _check_answer(ctx, output)
        status = "completed"
    except Suspend as suspend:
        status, approval_id = "suspended", suspend.approval_id
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            status = "cancelled"
            failure = RunFailed("cancelled", "the caller went away, or the host was told to stop")
        else:
            failure = RunFailed("code_error", "the agent's code raised CancelledError")
    except TimeoutError as error:
        if deadline.expired():
            failure = RunFailed("time_exceeded", f"the run took longer than max_seconds, {limits.max_seconds:g}")
        else:
            failure = RunFailed("code_error", f"the agent's code raised TimeoutError: {error}")
    except LockgateError as error:
        failure = error
    except (Exception, SystemExit) as error:  # the agent's own code, or a defect of ours: the run's boundary
        if ctx.ended is None:  # else it is only what a framework made of what stopped the run
            log.warning("run %s of %s failed", ctx.run_id or "(local)", ctx.version.agent, exc_info=True)
        word = "internal_error" if ctx.version.framework.kind == "native" else "code_error"
        stopped = ctx.ended if isinstance(ctx.ended, LockgateError) else ctx.model_failure
        failure = stopped or RunFailed(word, f"{type(error).__name__}: {error}")
    if isinstance(ctx.ended, Suspend) and status == "failed":  # stopped for a person, whatever the code made of it
        status, approval_id, failure = "suspended", ctx.ended.approval_id, None
    if ctx.ended is None:
        ctx.ended = RunFailed("cancelled", "the run has ended")  # a thread left behind must not act any more
    error_type = None if failure is None else _word(failure)
    message = None if failure is None else str(failure)
    ctx.tracer.agent(status=status, error_type=error_type, error=message)
    return RunResult(
        status=status,
        output=output if status == "completed" else None,
        tools_used=ctx.tools_used,
        usage=ctx.usage,
        cost_nano=ctx.cost_nano,
        seconds=time.monotonic() - started,
        model_calls=ctx.model_calls,
        iterations=ctx.iterations,
        served=ctx.served,
        run_id=ctx.run_id,
        trace_id=ctx.tracer.trace_id,
        approval_id=approval_id,
        error_type=error_type,
        error=message,
        retry_after=failure.retry_after if isinstance(failure, RunFailed | LimitExceeded) else None,
    )


def _check_answer(ctx: RunContext, output: Any) -> None:
    schema = ctx.version.guardrails.output_schema
    problem = schema_problem(schema, output) if schema is not None else None
    if problem is not None:
        raise RunFailed("output_invalid", f"the answer of the agent's code does not fit the output schema: {problem}")


def _kind(kind: str) -> Callable[[RunContext, Any], Awaitable[Any]]:
    if kind == "python":
        from lockgate.runtime.python_kind import run_python

        return run_python
    if kind == "langgraph":
        from lockgate.runtime.langgraph_kind import run_langgraph

        return run_langgraph
    if kind == "image":
        raise RunFailed("code_error", "an agent in a container image is not run by this host")
    return run_native


def _word(failure: LockgateError) -> str:
    match failure:
        case RunFailed():
            return failure.error_type
        case Diverged():
            return "diverged"
        case LimitExceeded():
            return "budget_exceeded"
        case _:
            return "internal_error"
