"""What a hosted framework's code may ask about the run it is in.

from lockgate.runtime import current_run

run = current_run()
model = ChatOpenAI(base_url=run.base_url, api_key=run.api_key, model=run.model)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import msgspec

from lockgate.errors import InputError


class CurrentRun(msgspec.Struct, frozen=True, kw_only=True):
    """The run in progress. ``base_url``, ``api_key`` and ``model`` are for any OpenAI-compatible client: calls made
    with them are the run's own steps, recorded and limited. ``await tool(name, arguments)`` calls a tool likewise."""

    base_url: str
    api_key: str
    model: str
    run_id: str
    tool: Callable[[str, dict[str, Any]], Awaitable[Any]]

    def __repr__(self) -> str:
        return f"CurrentRun({self.run_id!r}, {self.model!r})"


_current: ContextVar[CurrentRun] = ContextVar("lockgate_current_run")


def current_run() -> CurrentRun:
    """The run that this code is part of. Raises :class:`InputError` outside one."""
    try:
        return _current.get()
    except LookupError:
        raise InputError(
            "there is no run in progress here",
            remedy="call current_run() inside a node of the graph, not when the module is imported",
        ) from None
