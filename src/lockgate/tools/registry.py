"""The tools of a version, as people look at them. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate.errors import NotFound
from lockgate.versions.model import AgentVersion, ToolContract


class ToolView(msgspec.Struct, frozen=True, kw_only=True):
    """One tool of one agent version. ``callable`` is False for a name without a contract that says what to call."""

    agent: str
    name: str
    effect: str
    approval: bool
    handler: bool
    callable: bool
    python: str | None
    timeout: float
    description: str
    scopes: tuple[str, ...]
    input: dict[str, Any]
    output: dict[str, Any] | None


def tools_of(version: AgentVersion) -> list[ToolView]:
    """In the order of the agent file."""
    return [_view(version, tool) for tool in version.tools]


def tool_of(version: AgentVersion, name: str) -> ToolView:
    """Raises :class:`NotFound`, naming the tools there are."""
    tool = version.tool(name)
    if tool is None:
        known = ", ".join(one.name for one in version.tools) or "none"
        raise NotFound(f"agent {version.agent!r} has no tool {name!r}", remedy=f"its tools: {known}")
    return _view(version, tool)


def _view(version: AgentVersion, tool: ToolContract) -> ToolView:
    return ToolView(
        agent=version.agent,
        name=tool.name,
        effect=tool.effect,
        approval=tool.approval,
        handler=tool.name == version.handler,
        callable=tool.python is not None,
        python=tool.python,
        timeout=tool.timeout,
        description=tool.description,
        scopes=tool.scopes,
        input=tool.input,
        output=tool.output,
    )
