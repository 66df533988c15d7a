"""What a run has done so far, read out of the conversation it sends, and when that is too much. Pure.

Whatever framework runs an agent, each model call carries the conversation: the tools that were called in it, with their
arguments, are there to be counted, in the words of chat completions, of Anthropic's messages and of responses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lockgate.errors import LimitExceeded
from lockgate.limits.refusals import setting_of

MAX_REPEATS = 5
"""The same tool with the same arguments so often is a loop."""

ToolCall = tuple[str, str]
"""A tool's name, and its arguments as JSON with sorted keys."""

_encode = msgspec.json.Encoder(order="sorted").encode


class ActionBudget(NamedTuple):
    """What a run may do. Its model calls, tokens and USD are accounts in the hold table."""

    run_id: str
    max_tool_calls: int
    max_iterations: int
    max_seconds: float
    max_depth: int
    max_repeats: int = MAX_REPEATS


def may_hold_calls(*fields: bytes) -> bool:
    """Whether it is worth decoding the conversation: False when it surely holds no tool call."""
    return any(b'"tool_calls"' in raw or b'"tool_use"' in raw or b'"function_call"' in raw for raw in fields)


def tool_calls(conversation: Any) -> list[ToolCall]:
    """The tool calls in ``messages`` (chat completions, Anthropic) or ``input`` (responses), in order."""
    found: list[ToolCall] = []
    for item in conversation if isinstance(conversation, list) else ():
        if not isinstance(item, Mapping):
            continue
        if item.get("type") == "function_call":
            found.append(_call(item.get("name"), item.get("arguments")))
        for call in _list(item.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, Mapping):
                found.append(_call(function.get("name"), function.get("arguments")))
        for block in _list(item.get("content")):
            if block.get("type") == "tool_use":
                found.append(_call(block.get("name"), block.get("input")))
    return found


def offered_tools(tools: Any) -> list[str]:
    """The names of the tools that a request offers to the model, in any of the protocols; of one without a name (a
    provider's own, such as web search), its type."""
    names = []
    for tool in _list(tools):
        inner = tool.get("function")
        of = inner if isinstance(inner, Mapping) else tool
        names.append(str(of.get("name") or tool.get("type")))
    return names


def check(
    budget: ActionBudget,
    calls: Sequence[ToolCall],
    *,
    seconds: float = 0.0,
    iteration: int | None = None,
    depth: int | None = None,
) -> None:
    """:class:`LimitExceeded` with a typed reason when the run has to end; waiting does not help then."""
    if calls:
        ((name, arguments), count) = Counter(calls).most_common(1)[0]
        if count >= budget.max_repeats:
            raise _ends(
                budget,
                "loop_detected",
                "limits.runs.max_repeats in lockgate.yaml",
                f"called the tool {name!r} {count} times with the same arguments, {_short(arguments)}",
            )
    limits = (
        ("tool_calls_exceeded", "max_tool_calls", "tool calls", len(calls), budget.max_tool_calls),
        ("iterations_exceeded", "max_iterations", "iterations", iteration, budget.max_iterations),
        ("time_exceeded", "max_seconds", "seconds", seconds, budget.max_seconds),
        ("depth_exceeded", "max_depth", "runs above it", depth, budget.max_depth),
    )
    for reason, setting, what, used, most_allowed in limits:
        if used is not None and used > most_allowed:
            key = setting_of(f"run:{budget.run_id}", setting)
            raise _ends(budget, reason, key, f"has {used:g} {what}, and {setting} is {most_allowed:g}")


def out_of_time(budget: ActionBudget) -> LimitExceeded:
    """What a call meets that is under way when the time of its run is over."""
    key = setting_of(f"run:{budget.run_id}", "max_seconds")
    return _ends(budget, "time_exceeded", key, f"is out of time: max_seconds is {budget.max_seconds:g}")


def _ends(budget: ActionBudget, reason: str, key: str, message: str) -> LimitExceeded:
    return LimitExceeded(
        f"the run {budget.run_id!r} {message}",
        limit=f"run:{budget.run_id}",
        reason=reason,
        remedy=f"end the run; a higher limit is {key}",
    )


def _list(value: Any) -> Iterable[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else ()


def _call(name: Any, arguments: Any) -> ToolCall:
    if not isinstance(arguments, str):
        return str(name), _encode(arguments).decode()
    try:
        return str(name), _encode(msgspec.json.decode(arguments)).decode()
    except (msgspec.DecodeError, RecursionError):
        return str(name), arguments


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "…"
