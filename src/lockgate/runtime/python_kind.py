"""``framework: {kind: python, entrypoint: "module:function"}``: the agent is a function of context and input."""

from __future__ import annotations

from typing import Any

from lockgate.errors import RunFailed
from lockgate.runtime.calling import call_function
from lockgate.runtime.context import RunContext
from lockgate.tools.contracts import plain


async def run_python(ctx: RunContext, input: Any) -> Any:
    """``await function(ctx, input)``; what it returns is the answer. Raises :class:`RunFailed`."""
    entrypoint = ctx.version.framework.entrypoint
    if not entrypoint:
        raise RunFailed("code_error", "framework.entrypoint is missing", remedy='entrypoint: "module:function"')
    function = ctx.code.entrypoint(entrypoint)
    if not callable(function):
        raise RunFailed("code_error", f"{entrypoint!r} is not a function but {type(function).__name__}")
    return plain(await call_function(function, ctx, input))
