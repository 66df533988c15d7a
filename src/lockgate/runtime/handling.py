"""The handler: the tool that turns what the model found into the answer. The model proposes, code disposes."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from lockgate.errors import LockgateError, RunFailed
from lockgate.runtime.calling import call_function
from lockgate.runtime.context import RunContext
from lockgate.tools.contracts import plain


async def run_handler(ctx: RunContext, output: Any) -> Any:
    """``handler(output, call)``; ``call("tool", name=value)`` calls the agent's other tools, each a step of the run.

    An async handler awaits ``call``; for an ordinary function, which gets a thread, ``call`` blocks. When a run is
    resumed or replayed, the handler runs again and its calls are answered from the record. Raises :class:`RunFailed`.
    """
    name = str(ctx.version.handler)
    contract = ctx.version.tool(name)
    if contract is None or contract.python is None:
        raise RunFailed("code_error", f"the handler {name!r} has no contract that names a Python function")
    function = ctx.code.tool(contract.python)
    loop = asyncio.get_running_loop()

    async def call(tool: str, /, **arguments: Any) -> Any:
        return await ctx.tool(tool, arguments)

    def blocking_call(tool: str, /, **arguments: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(ctx.tool(tool, arguments), loop).result()

    with ctx.tracer.handler(name), ctx.about(output):
        try:
            caller = call if inspect.iscoroutinefunction(function) else blocking_call
            return plain(await call_function(function, output, caller))
        except LockgateError:
            raise
        except (Exception, SystemExit) as problem:  # the agent's own code: anything may come out of it
            raise RunFailed(
                "handler_failed", f"handler {name!r} raised {type(problem).__name__}: {problem}"
            ) from problem
