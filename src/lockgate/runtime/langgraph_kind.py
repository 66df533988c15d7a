"""``framework: {kind: langgraph, entrypoint: "module:app"}``: the agent is a compiled graph over ``messages``.

The graph's own model calls come back as steps of the run when its client takes address, key and model name from
:func:`~lockgate.runtime.current.current_run`; its tools likewise through ``current_run().tool``.
"""

from __future__ import annotations

from typing import Any

from lockgate.errors import RunFailed
from lockgate.runtime.context import RunContext
from lockgate.runtime.current import CurrentRun, _current
from lockgate.runtime.loopback import model_address
from lockgate.runtime.model import wire_name
from lockgate.runtime.native import opening, read_answer, text_of
from lockgate.tools.contracts import plain


async def run_langgraph(ctx: RunContext, input: Any) -> Any:
    """``await app.ainvoke({"messages": […]})``; the answer is the last message, or ``structured_response``."""
    version = ctx.version
    entrypoint = version.framework.entrypoint
    if not entrypoint:
        raise RunFailed("code_error", "framework.entrypoint is missing", remedy='entrypoint: "module:app"')
    app = ctx.code.entrypoint(entrypoint)
    if not hasattr(app, "ainvoke"):
        raise RunFailed(
            "code_error", f"{entrypoint!r} is no compiled graph: it has no ainvoke", remedy="app = graph.compile()"
        )
    messages = opening(version, input)
    async with model_address(ctx) as address:
        run = CurrentRun(
            base_url=address.base_url,
            api_key=address.api_key,
            model=wire_name(version.model),
            run_id=ctx.run_id,
            tool=ctx.tool,
        )
        token = _current.set(run)
        try:
            state = await app.ainvoke({"messages": messages})
        finally:
            _current.reset(token)
    return _output(ctx, state)


def _output(ctx: RunContext, state: Any) -> Any:
    structured = state.get("structured_response") if isinstance(state, dict) else None
    if structured is not None:
        return plain(structured.model_dump(mode="json") if hasattr(structured, "model_dump") else structured)
    messages = state.get("messages") if isinstance(state, dict) else None
    if not messages:
        raise RunFailed("output_invalid", f"the graph's state has no messages: {str(state)[:200]}")
    last = messages[-1]
    content = last.get("content") if isinstance(last, dict) else getattr(last, "content", None)
    message = {"content": text_of(content)}
    output, problem = read_answer(message, ctx.version.guardrails.output_schema, cut=False)
    if problem is not None:
        raise RunFailed("output_invalid", problem)
    return output
